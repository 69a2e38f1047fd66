/*
 * internal.h
 *		What the files of room base share among themselves.
 */
#ifndef PLINTH_BASE_INTERNAL_H
#define PLINTH_BASE_INTERNAL_H

#include "utils/guc.h"

/* address.c: check hook of plinth.trusted_proxies. */
extern bool plinth_base_check_networks(char **newval, void **extra, GucSource source);

/* origin.c: check hook of plinth.allowed_origins. */
extern bool plinth_base_check_origins(char **newval, void **extra, GucSource source);

/* address.c: check hook of settings that list names. */
extern bool plinth_base_check_name_list(char **newval, void **extra, GucSource source);

/* claims.c: what request.jwt.claims says, when its writer is believed; else NULL. */
extern const PlinthContext *plinth_base_claims_context(void);

/* statement.c: what could not even be analyzed is not for pg_stat_activity either. */
extern void plinth_base_statement_rolled_back(void);

#endif /* PLINTH_BASE_INTERNAL_H */
