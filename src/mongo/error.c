/*
 * error.c
 *		What went wrong, in the room's own terms.
 *
 * The classes matter to the writer: is the document at fault or the
 * connection, may it be tried again, may it still land.  Messages may reach
 * logs and views: they carry no credentials (the driver puts none into them)
 * and no key values (cut off behind the index's name).
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "mongo/client_int.h"

const char *
plinth_mongo_status_name(PlinthMongoStatus status)
{
	switch (status)
	{
		case PLINTH_MONGO_OK:
			return "ok";
		case PLINTH_MONGO_UNREACHABLE:
			return "unreachable";
		case PLINTH_MONGO_DNS:
			return "dns";
		case PLINTH_MONGO_TLS:
			return "tls";
		case PLINTH_MONGO_AUTH:
			return "auth";
		case PLINTH_MONGO_CONFIG:
			return "config";
		case PLINTH_MONGO_NOT_PRIMARY:
			return "not_primary";
		case PLINTH_MONGO_WRITE_CONCERN:
			return "write_concern";
		case PLINTH_MONGO_DUPLICATE_KEY:
			return "duplicate_key";
		case PLINTH_MONGO_TOO_LARGE:
			return "too_large";
		case PLINTH_MONGO_BAD_DOCUMENT:
			return "bad_document";
		case PLINTH_MONGO_CANCELLED:
			return "cancelled";
		case PLINTH_MONGO_HELD:
			return "held";
		case PLINTH_MONGO_OTHER:
			break;
	}
	return "other";
}

bool
plinth_mongo_status_is_transient(PlinthMongoStatus status)
{
	switch (status)
	{
		case PLINTH_MONGO_DUPLICATE_KEY:
		case PLINTH_MONGO_TOO_LARGE:
		case PLINTH_MONGO_BAD_DOCUMENT:
			return false;
		default:
			return true;
	}
}

bool
plinth_mongo_status_is_unknown(PlinthMongoStatus status)
{
	switch (status)
	{
		case PLINTH_MONGO_UNREACHABLE:
		case PLINTH_MONGO_WRITE_CONCERN:
		case PLINTH_MONGO_CANCELLED:
		case PLINTH_MONGO_OTHER:
			return true;
		default:
			return false;
	}
}

/* One line of printable text in the server's encoding. */
static void
make_printable(char *message)
{
	bool utf8 = GetDatabaseEncoding() == PG_UTF8;
	int len;

	for (char *c = message; *c != '\0'; c++)
	{
		if ((unsigned char) *c < ' ' || *c == 0x7f || (!utf8 && IS_HIGHBIT_SET(*c)))
			*c = *c == '\n' || *c == '\t' ? ' ' : '?';
	}
	/* Cut off a character that the buffer's end split. */
	len = strlen(message);
	while (len > 0 && !bson_utf8_validate(message, len, false))
		message[--len] = '\0';
}

void
plinth_mongo_error_set(PlinthMongoError *error, PlinthMongoStatus status, int code, const char *fmt,
					   ...)
{
	va_list args;

	if (error == NULL)
		return;
	error->status = status;
	error->code = code;
	va_start(args, fmt);
	vsnprintf(error->message, sizeof(error->message), fmt, args);
	va_end(args);
	make_printable(error->message);
}

void
plinth_mongo_error_clear(PlinthMongoError *error)
{
	if (error == NULL)
		return;
	error->status = PLINTH_MONGO_OK;
	error->code = 0;
	error->message[0] = '\0';
}

void
plinth_mongo_error_copy(PlinthMongoError *to, const PlinthMongoError *from)
{
	to->status = from->status;
	to->code = from->code;
	strlcpy(to->message, from->message, sizeof(to->message));
}

static PlinthMongoStatus
status_of_code(int code)
{
	switch (code)
	{
		case 11000: /* DuplicateKey */
		case 11001:
		case 12582:
			return PLINTH_MONGO_DUPLICATE_KEY;
		case 10334: /* BSONObjectTooLarge */
		case 17280: /* KeyTooLong */
		case 17419: /* resulting document after update is larger */
		case 17420:
			return PLINTH_MONGO_TOO_LARGE;
		case 91:  /* ShutdownInProgress */
		case 189: /* PrimarySteppedDown */
		case 10058:
		case 10107: /* NotWritablePrimary */
		case 11600: /* InterruptedAtShutdown */
		case 11602: /* InterruptedDueToReplStateChange */
		case 13435: /* NotPrimaryNoSecondaryOk */
		case 13436: /* NotPrimaryOrSecondary */
			return PLINTH_MONGO_NOT_PRIMARY;
		case 64:  /* WriteConcernFailed */
		case 79:  /* UnknownReplWriteConcern */
		case 100: /* UnsatisfiableWriteConcern */
			return PLINTH_MONGO_WRITE_CONCERN;
		case 8000: /* Atlas */
		case 11:   /* UserNotFound */
		case 13:   /* Unauthorized */
		case 18:   /* AuthenticationFailed */
		case 334:  /* MechanismUnavailable */
			return PLINTH_MONGO_AUTH;
		case 2:     /* BadValue */
		case 9:     /* FailedToParse */
		case 14:    /* TypeMismatch */
		case 15:    /* Overflow */
		case 22:    /* InvalidBSON */
		case 40:    /* ConflictingUpdateOperators */
		case 52:    /* DollarPrefixedFieldName */
		case 53:    /* InvalidIdField */
		case 55:    /* InvalidDBRef */
		case 56:    /* EmptyFieldName */
		case 57:    /* DottedFieldName */
		case 66:    /* ImmutableField */
		case 121:   /* DocumentValidationFailure */
		case 16755: /* cannot extract geo keys */
		case 16766:
			return PLINTH_MONGO_BAD_DOCUMENT;
		default:
			return PLINTH_MONGO_OTHER;
	}
}

PlinthMongoStatus
plinth_mongo_error_from_server(PlinthMongoError *error, int code, const char *message, size_t len)
{
	PlinthMongoStatus status = status_of_code(code);
	char text[512];
	char *values;

	strlcpy(text, message, Min(len + 1, sizeof(text)));
	/* "… index: email_1 dup key: { email: \"…\" }" */
	values = strstr(text, " dup key:");
	if (values != NULL)
		*values = '\0';
	plinth_mongo_error_set(error, status, code, "%s", text);
	return status;
}

PlinthMongoStatus
plinth_mongo_error_from_driver(PlinthMongoClient *client, PlinthMongoError *error,
							   const bson_error_t *from)
{
	PlinthMongoStatus status;
	const char *reason = from->message;

	if (client->cancelled)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CANCELLED, 0, "cancelled");
		return PLINTH_MONGO_CANCELLED;
	}

	switch (from->domain)
	{
		case MONGOC_ERROR_SERVER:
		case MONGOC_ERROR_WRITE_CONCERN:
			return plinth_mongo_error_from_server(error, (int) from->code, from->message,
												  strlen(from->message));
		case MONGOC_ERROR_SERVER_SELECTION:
			/* What this room's own connecting said is closer to the cause. */
			if (client->connect_error.status != PLINTH_MONGO_OK)
			{
				*error = client->connect_error;
				return error->status;
			}
			/* "No suitable servers found (…): [reason]. Topology type: …" */
			reason = strstr(reason, ": [") == NULL ? reason : strstr(reason, ": [") + 2;
			plinth_mongo_error_set(error, PLINTH_MONGO_UNREACHABLE, (int) from->code,
								   "no usable server: %s", reason);
			return PLINTH_MONGO_UNREACHABLE;
		case MONGOC_ERROR_CLIENT:
			status = from->code == MONGOC_ERROR_CLIENT_AUTHENTICATE ||
							 from->code == MONGOC_ERROR_CLIENT_GETNONCE
						 ? PLINTH_MONGO_AUTH
					 : from->code == MONGOC_ERROR_CLIENT_TOO_BIG ? PLINTH_MONGO_TOO_LARGE
																 : PLINTH_MONGO_OTHER;
			break;
		case MONGOC_ERROR_SASL:
		case MONGOC_ERROR_SCRAM:
			status = PLINTH_MONGO_AUTH;
			break;
		case MONGOC_ERROR_STREAM:
		case MONGOC_ERROR_PROTOCOL:
			status = PLINTH_MONGO_UNREACHABLE;
			break;
		default:
			status = PLINTH_MONGO_OTHER;
	}
	plinth_mongo_error_set(error, status, (int) from->code, "%s", from->message);
	return status;
}
