/*
 * client_int.h
 *		What mongo's client files share.  Private.
 *
 * Include after "postgres.h".
 *
 * Everything here is malloc'd by libbson, since the driver outlives memory
 * contexts.  Between plinth_mongo_enter and plinth_mongo_leave interrupts are
 * held: nothing may longjmp through the driver.
 */
#ifndef PLINTH_CLIENT_INT_H
#define PLINTH_CLIENT_INT_H

#include <mongoc/mongoc.h>

#include "mongo/mongo.h"
#include "mongo/bson_int.h"
#include "mongo/resolve.h"

/* Beyond maxTimeMS, for the way there and back. */
#define MONGO_SOCKET_MARGIN_MS 2000

typedef struct MongoTls
{
	bool enabled;
	bool allow_invalid_certificates;
	bool allow_invalid_hostnames;
	char *ca_file;
	char *certificate_key_file;
} MongoTls;

/* A connection string in its parts; strings malloc'd, NULL for what it does not have. */
typedef struct MongoUri
{
	bool srv;
	char *hosts; /* "host:port,…", or the one name of an SRV record */
	char *path;  /* "" or the database to authenticate against */
	char *query; /* the options that the driver is to see */
	bool tls_given;
	bool tls;
} MongoUri;

/* What scan.c has open; all 0 for nothing. */
typedef enum MongoScanStage
{
	MONGO_SCAN_ALL,   /* of all */
	MONGO_SCAN_CLASS, /* of what is behind an _id, of the same class of types */
	MONGO_SCAN_BEHIND /* of the classes behind that */
} MongoScanStage;

typedef struct MongoScan
{
	int64 cursor; /* the server's; 0 when none is open */
	MongoScanStage stage;
	char *collection;
	bool ids_only;
	uint8 *last; /* {"_id": value} that it stands behind */
	uint32 lastlen;
	int64 opened_at;
} MongoScan;

struct PlinthMongoClient
{
	MongoUri uri;
	char *database;
	char *username;
	char *password;
	char *auth_mechanism;
	char *auth_source;
	char *replica_set;
	char *app_name;
	MongoTls tls;
	mongoc_client_t *driver; /* NULL until needed, and again after a failure */
	uint64 connections;
	PlinthMongoError connect_error; /* why the last connection was not made; OK for none */
	bool patient;                   /* may wait for an answer without end */
	bool endless;                   /* does so now */
	bool latch_was_set;
	bool cancelled;
	MongoScan scan;
	PlinthMongoWork meanwhile; /* NULL for none */
	void *meanwhile_arg;
	ErrorData *meanwhile_error; /* raised by plinth_mongo_leave */
};

/* init.c */
extern bool plinth_mongo_in_driver;

/* wait.c */
typedef enum MongoWait
{
	MONGO_WAIT_READY,
	MONGO_WAIT_TIMEOUT,
	MONGO_WAIT_CANCELLED
} MongoWait;
extern int64 plinth_mongo_now(void);
extern void plinth_mongo_enter(PlinthMongoClient *client);
extern void plinth_mongo_leave(PlinthMongoClient *client);
extern MongoWait plinth_mongo_wait_socket(PlinthMongoClient *client, int fd, uint32 events,
										  int64 deadline);

/* stream.c, tls.c, connect.c */
typedef struct ssl_st MongoSsl;
extern mongoc_stream_t *plinth_mongo_stream_new(PlinthMongoClient *client, int fd, MongoSsl *ssl);
extern MongoSsl *plinth_mongo_tls_connect(PlinthMongoClient *client, int fd, const char *host,
										  int64 deadline, PlinthMongoError *error);
extern void plinth_mongo_tls_free(MongoSsl *ssl);
/* Bytes, 0 at the end, -1 with *want (WL_SOCKET_*; 0 for an error in errno). */
extern ssize_t plinth_mongo_tls_read(MongoSsl *ssl, void *buffer, size_t len, uint32 *want);
extern ssize_t plinth_mongo_tls_write(MongoSsl *ssl, const void *buffer, size_t len, uint32 *want);
extern bool plinth_mongo_tls_pending(MongoSsl *ssl);
extern mongoc_stream_t *plinth_mongo_connect(const mongoc_uri_t *uri,
											 const mongoc_host_list_t *host, void *user_data,
											 bson_error_t *error);
/* Waits for the name; NULL with error filled. */
extern MongoLookup *plinth_mongo_resolve(PlinthMongoClient *client, MongoLookupKind kind,
										 const char *name, int port, PlinthMongoError *error);

/* uri.c: false with error (and a hint) filled */
extern bool plinth_mongo_uri_parse(const char *text, MongoUri *uri, PlinthMongoError *error,
								   const char **hint);
extern void plinth_mongo_uri_free(MongoUri *uri);
/* The driver's form: credentials, timeouts and server options included; NULL with error filled. */
extern mongoc_uri_t *plinth_mongo_uri_build(PlinthMongoClient *client, const char *hosts,
											const char *options, PlinthMongoError *error);
extern bool plinth_mongo_auth_mechanism_known(const char *mechanism);

/* driver.c: makes the driver's client where there is none; inside enter and leave */
extern bool plinth_mongo_driver_open(PlinthMongoClient *client, PlinthMongoError *error);
extern void plinth_mongo_driver_close(PlinthMongoClient *client);

/* secret.c: the first line of a file, malloc'd; NULL with error filled */
extern char *plinth_mongo_read_secret(const char *path, PlinthMongoError *error);

/* error.c */
extern void plinth_mongo_error_set(PlinthMongoError *error, PlinthMongoStatus status, int code,
								   const char *fmt, ...) pg_attribute_printf(4, 5);
extern void plinth_mongo_error_clear(PlinthMongoError *error);
/* As far as there is a message: there is one of these for each op, and most are empty. */
extern void plinth_mongo_error_copy(PlinthMongoError *to, const PlinthMongoError *from);
extern PlinthMongoStatus plinth_mongo_error_from_server(PlinthMongoError *error, int code,
														const char *message, size_t len);
extern PlinthMongoStatus plinth_mongo_error_from_driver(PlinthMongoClient *client,
														PlinthMongoError *error,
														const bson_error_t *from);

/* command.c: runs as it stands; reply is palloc'd, data NULL where there was none */
extern PlinthMongoStatus plinth_mongo_run(PlinthMongoClient *client, const bson_t *command,
										  PlinthBson *reply, PlinthMongoError *error);
/* Adds what every command of ours carries. */
extern bool plinth_mongo_add_write_options(bson_t *command);
extern bool plinth_mongo_add_read_options(bson_t *command);

/* find.c: what a find or its like returns */
typedef struct MongoDocuments
{
	PlinthBson *items; /* palloc'd */
	int count;
	int room;
} MongoDocuments;
/* Runs a find, or a getMore, as it stands; *cursor_id is 0 when there is no more. */
extern PlinthMongoStatus plinth_mongo_read_batch(PlinthMongoClient *client, const bson_t *command,
												 MongoDocuments *documents, int64 *cursor_id,
												 PlinthMongoError *error);
/* Runs a find or its like (which it destroys) and reads all of its result. */
extern PlinthMongoStatus plinth_mongo_read_all(PlinthMongoClient *client, const char *collection,
											   bson_t *find, MongoDocuments *documents,
											   PlinthMongoError *error);

/* index_build.c: all indexes of a collection (its name in UTF-8), as listIndexes tells them. */
extern PlinthMongoStatus plinth_mongo_index_read(PlinthMongoClient *client, const char *collection,
												 MongoDocuments *indexes, PlinthMongoError *error);

/*
 * write.c: one command that inserts the first of nops documents in their order,
 * as many as it has room for and until one fails; *tried tells how many.
 */
extern PlinthMongoStatus plinth_mongo_insert_ordered(PlinthMongoClient *client,
													 const char *collection, PlinthMongoOp **ops,
													 int nops, int *tried, PlinthMongoError *error);
/* True with the op's error filled. */
extern bool plinth_mongo_op_too_large(PlinthMongoOp *op);

extern void plinth_mongo_append_id_only(bson_t *command);

/* scan.c: before the client goes */
extern void plinth_mongo_scan_forget(PlinthMongoClient *client);

/* find.c: which of these _ids there are: {"_id": value} of each, palloc'd. */
extern PlinthMongoStatus plinth_mongo_find_ids(PlinthMongoClient *client, const char *collection,
											   const PlinthBson *ids, int nids, PlinthBson **items,
											   int *nitems, PlinthMongoError *error);

#endif /* PLINTH_CLIENT_INT_H */
