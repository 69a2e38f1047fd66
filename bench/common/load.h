/*
 * load.h
 *		What the kinds of steps of load.c share.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>

#define LOAD_MAX_COMMANDS 4
#define LOAD_MAX_WORDS 24
#define LOAD_MAX_FIELDS 4
#define LOAD_MAX_FIELD 512

typedef struct LoadCommand
{
	const char *words[LOAD_MAX_WORDS]; /* of PostgreSQL the SQL alone */
	int nwords;
	int nparams; /* PostgreSQL: which fields it takes */
	int params[LOAD_MAX_FIELDS];
	char name[16];
} LoadCommand;

typedef struct LoadKey
{
	const char *fields[LOAD_MAX_FIELDS];
	int nfields;
} LoadKey;

typedef struct LoadStep LoadStep;

typedef struct LoadKind
{
	const char *name;
	void (*connect)(LoadStep *step); /* in each client */
	void (*run)(const LoadStep *step, const LoadKey *key);
} LoadKind;

struct LoadStep
{
	const LoadKind *kind;
	const char *target;
	int number; /* from 0, in their order */
	LoadCommand commands[LOAD_MAX_COMMANDS];
	int ncommands;
	void *connection;
};

extern const LoadKind load_pg;
extern const LoadKind load_redis;
extern const LoadKind load_http;

/* Ends the program, with a message. */
extern void __attribute__((noreturn, format(printf, 1, 2))) load_fail(const char *format, ...);

extern char *load_copy(const char *text);

/* What a network would take. */
extern void load_wait_network(void);
extern bool load_is_delayed(void);

/* The connection of an earlier step of the same kind to the same target; or NULL. */
extern void *load_shared_connection(const LoadStep *step);

/* A word with what it names of the key, in place of its mark. */
extern const char *load_fill_word(const char *word, const LoadKey *key, char *filled, size_t size);

#endif /* LOAD_H */
