/*
 * resolve.h
 *		Name lookups in a helper thread.
 */
#ifndef PLINTH_RESOLVE_H
#define PLINTH_RESOLVE_H

#include <stdbool.h>
#include <netdb.h>

typedef enum MongoLookupKind
{
	MONGO_LOOKUP_HOST, /* getaddrinfo */
	MONGO_LOOKUP_SRV   /* the hosts and options of a mongodb+srv uri */
} MongoLookupKind;

/* What came out; belongs to the caller once it was taken. */
typedef struct MongoLookup
{
	int gai_error; /* of MONGO_LOOKUP_HOST; 0 for success */
	struct addrinfo *addresses;
	char *hosts;       /* of MONGO_LOOKUP_SRV: "host:port,…", NULL on failure */
	char *options;     /* "replicaSet=…&…", may be empty */
	char message[256]; /* why SRV failed */
} MongoLookup;

extern void plinth_mongo_lookup_free(MongoLookup *lookup);

#endif /* PLINTH_RESOLVE_H */
