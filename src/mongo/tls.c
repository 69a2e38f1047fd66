/*
 * tls.c
 *		TLS over a non-blocking socket, by OpenSSL.
 *
 * The driver's own TLS would look for OCSP responders with blocking sockets
 * in the middle of a handshake, so the connection is made here.  TLS 1.2 is
 * the least; the server's certificate must verify and name the host, unless
 * an option that only a superuser can set says otherwise.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "mongo/client_int.h"
#include "storage/latch.h"

/* The newest error of OpenSSL's queue, which is emptied. */
static const char *
ssl_reason(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = code == 0 ? NULL : ERR_reason_error_string(code);

	ERR_clear_error();
	return reason == NULL ? "unknown error" : reason;
}

/* A key under a passphrase would ask a terminal. */
static int
no_passphrase(char *buffer, int size, int writing, void *arg)
{
	return 0;
}

static bool
load_files(const MongoTls *tls, SSL_CTX *context, PlinthMongoError *error)
{
	if (tls->ca_file != NULL)
	{
		if (SSL_CTX_load_verify_locations(context, tls->ca_file, NULL) != 1)
		{
			plinth_mongo_error_set(error, PLINTH_MONGO_TLS, 0,
								   "could not load tls_ca_file \"%s\": %s", tls->ca_file,
								   ssl_reason());
			return false;
		}
	}
	else
		SSL_CTX_set_default_verify_paths(context);

	if (tls->certificate_key_file != NULL &&
		(SSL_CTX_use_certificate_chain_file(context, tls->certificate_key_file) != 1 ||
		 SSL_CTX_use_PrivateKey_file(context, tls->certificate_key_file, SSL_FILETYPE_PEM) != 1 ||
		 SSL_CTX_check_private_key(context) != 1))
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_TLS, 0,
							   "could not load tls_certificate_key_file \"%s\": %s",
							   tls->certificate_key_file, ssl_reason());
		return false;
	}
	return true;
}

static SSL_CTX *
make_context(const MongoTls *tls, PlinthMongoError *error)
{
	SSL_CTX *context;

	ERR_clear_error();
	context = SSL_CTX_new(TLS_client_method());
	if (context == NULL)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_TLS, 0, "could not create TLS context: %s",
							   ssl_reason());
		return NULL;
	}
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_default_passwd_cb(context, no_passphrase);
	SSL_CTX_set_verify(context, tls->allow_invalid_certificates ? SSL_VERIFY_NONE : SSL_VERIFY_PEER,
					   NULL);
	if (!load_files(tls, context, error))
	{
		SSL_CTX_free(context);
		return NULL;
	}
	return context;
}

/* Which name the certificate must carry. */
static bool
expect_host(const MongoTls *tls, SSL *ssl, const char *host)
{
	unsigned char address[16];
	bool is_address =
		inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;

	if (!is_address && SSL_set_tlsext_host_name(ssl, host) != 1)
		return false;
	if (tls->allow_invalid_hostnames || tls->allow_invalid_certificates)
		return true;
	if (is_address)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, host) == 1;
}

static uint32
wanted(SSL *ssl, int result)
{
	switch (SSL_get_error(ssl, result))
	{
		case SSL_ERROR_WANT_READ:
			return WL_SOCKET_READABLE;
		case SSL_ERROR_WANT_WRITE:
			return WL_SOCKET_WRITEABLE;
		default:
			return 0;
	}
}

static void
handshake_failed(SSL *ssl, const char *host, PlinthMongoError *error)
{
	long verify = SSL_get_verify_result(ssl);

	if (verify != X509_V_OK && SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE)
		plinth_mongo_error_set(error, PLINTH_MONGO_TLS, (int) verify,
							   "certificate of \"%s\" was not accepted: %s", host,
							   X509_verify_cert_error_string(verify));
	else if (ERR_peek_last_error() == 0)
		plinth_mongo_error_set(error, PLINTH_MONGO_TLS, 0,
							   "TLS handshake with \"%s\" failed: connection closed", host);
	else
		plinth_mongo_error_set(error, PLINTH_MONGO_TLS, 0, "TLS handshake with \"%s\" failed: %s",
							   host, ssl_reason());
}

static bool
handshake(PlinthMongoClient *client, SSL *ssl, int fd, const char *host, int64 deadline,
		  PlinthMongoError *error)
{
	for (;;)
	{
		int result;
		uint32 want;

		ERR_clear_error();
		result = SSL_connect(ssl);
		if (result == 1)
			return true;
		want = wanted(ssl, result);
		if (want == 0)
		{
			handshake_failed(ssl, host, error);
			return false;
		}
		switch (plinth_mongo_wait_socket(client, fd, want, deadline))
		{
			case MONGO_WAIT_READY:
				break;
			case MONGO_WAIT_TIMEOUT:
				plinth_mongo_error_set(error, PLINTH_MONGO_UNREACHABLE, 0,
									   "TLS handshake with \"%s\" timed out", host);
				return false;
			case MONGO_WAIT_CANCELLED:
				plinth_mongo_error_set(error, PLINTH_MONGO_CANCELLED, 0, "cancelled");
				return false;
		}
	}
}

/* NULL with error filled. */
MongoSsl *
plinth_mongo_tls_connect(PlinthMongoClient *client, int fd, const char *host, int64 deadline,
						 PlinthMongoError *error)
{
	SSL_CTX *context = make_context(&client->tls, error);
	SSL *ssl;

	if (context == NULL)
		return NULL;
	ssl = SSL_new(context);
	SSL_CTX_free(context); /* ssl holds a reference */
	if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 || !expect_host(&client->tls, ssl, host))
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_TLS, 0, "could not set up TLS for \"%s\": %s",
							   host, ssl_reason());
		SSL_free(ssl);
		return NULL;
	}
	if (!handshake(client, ssl, fd, host, deadline, error))
	{
		ERR_clear_error();
		SSL_free(ssl);
		return NULL;
	}
	return ssl;
}

void
plinth_mongo_tls_free(MongoSsl *ssl)
{
	ERR_clear_error();
	SSL_shutdown(ssl);
	ERR_clear_error();
	SSL_free(ssl);
}

static ssize_t
finish_io(SSL *ssl, int result, uint32 *want)
{
	*want = 0;
	if (result > 0)
		return result;
	*want = wanted(ssl, result);
	if (*want == 0)
	{
		if (SSL_get_error(ssl, result) == SSL_ERROR_ZERO_RETURN)
			return 0;
		ERR_clear_error();
		errno = ECONNRESET;
	}
	return -1;
}

ssize_t
plinth_mongo_tls_read(MongoSsl *ssl, void *buffer, size_t len, uint32 *want)
{
	ERR_clear_error();
	return finish_io(ssl, SSL_read(ssl, buffer, (int) Min(len, PG_INT32_MAX)), want);
}

ssize_t
plinth_mongo_tls_write(MongoSsl *ssl, const void *buffer, size_t len, uint32 *want)
{
	ERR_clear_error();
	return finish_io(ssl, SSL_write(ssl, buffer, (int) Min(len, PG_INT32_MAX)), want);
}

bool
plinth_mongo_tls_pending(MongoSsl *ssl)
{
	return SSL_pending(ssl) > 0;
}
