/*
 * crypto.h
 *		Randomness, hashes, keys and comparison, all by libsodium.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_CRYPTO_H
#define PLINTH_CRYPTO_H

#include "crypto/token_text.h"

#define PLINTH_HASH_BYTES 32

/* Declares settings' consumers and shared memory; called in _PG_init (loads the root key in the postmaster). */
extern void plinth_crypto_init(void);

/* Fills dst with len unpredictable bytes. */
extern void plinth_crypto_random(void *dst, size_t len);

/* BLAKE2b-256 (RFC 7693), unkeyed: for values that carry 256 bits of entropy themselves. */
extern void plinth_crypto_hash(const void *src, size_t len, uint8 out[PLINTH_HASH_BYTES]);

/*
 * BLAKE2b-256 keyed by a key derived from the root key for this purpose: for
 * short codes.  ERRORs (55000, with a hint) when no root key is configured.
 */
extern void plinth_crypto_keyed_hash(const char *purpose, const void *src, size_t len,
									 uint8 out[PLINTH_HASH_BYTES]);
extern bool plinth_crypto_has_root_key(void);

/* BLAKE2b-256 keyed by another value of 256 bits. */
extern void plinth_crypto_mac(const uint8 key[PLINTH_HASH_BYTES], const void *src, size_t len,
							  uint8 out[PLINTH_HASH_BYTES]);

/*
 * Seals len bytes into an envelope of len + PLINTH_SEAL_OVERHEAD bytes, under a
 * key derived from the root key for this purpose (ERRORs as above without
 * one).  It opens with the same purpose and context only: name in the context
 * what the envelope belongs to.  Opening tells whether it is whole, and writes
 * len - PLINTH_SEAL_OVERHEAD bytes; wipe them after use.
 */
#define PLINTH_SEAL_OVERHEAD 41
extern void plinth_crypto_seal(const char *purpose, const char *context, const void *src,
							   size_t len, uint8 *envelope);
extern bool plinth_crypto_open(const char *purpose, const char *context, const uint8 *envelope,
							   size_t len, void *dst);

/*
 * Reads a file that holds a key and that nobody else can read, without
 * newlines at its end; returns its length, at most size.  Anything wrong is
 * reported at elevel (ERROR or above); messages call the file by its name,
 * which need not tell where it is.
 */
extern size_t plinth_crypto_key_file_read(int elevel, const char *name, const char *path,
										  const char *hint, uint8 *buffer, size_t size);

/*
 * A token: a prefix of four characters ("pls_"), 43 more and a zero; and the
 * hash that is stored of it.  The second tells the hash of one that is brought;
 * false when it has not the form of such a token.
 */
extern void plinth_crypto_token_make(const char *prefix, char token[PLINTH_TOKEN_SIZE],
									 uint8 hash[PLINTH_HASH_BYTES]);
extern bool plinth_crypto_token_hash(const char *prefix, const char *token, size_t len,
									 uint8 hash[PLINTH_HASH_BYTES]);

/* SHA-1, for lists that others made by it; for nothing that is to be secret. */
#define PLINTH_SHA1_BYTES 20
extern void plinth_crypto_sha1(const void *src, size_t len, uint8 out[PLINTH_SHA1_BYTES]);

/* A number from 0 to below - 1, each as likely. */
extern uint32 plinth_crypto_random_below(uint32 below);

/* Constant-time comparison. */
extern bool plinth_crypto_equal(const void *a, const void *b, size_t len);

/* Overwrites memory in a way the compiler keeps. */
extern void plinth_crypto_wipe(void *ptr, size_t len);

/*
 * Argon2id (RFC 9106) as a PHC string, palloc'd, with the settings' costs; at
 * most plinth.password_max_concurrent run at once in the cluster, others wait.
 */
extern char *plinth_crypto_password_hash(const char *password, size_t len);

/* True when the password fits the hash: a PHC string (argon2id or argon2i), or one of bcrypt. */
extern bool plinth_crypto_password_verify(const char *phc, const char *password, size_t len);

/* An ERROR (22023) for a string that costs several times what a hash of this server costs. */
extern void plinth_crypto_password_check_costs(const char *phc);

/* Spends what a verification costs, for an account that does not exist. */
extern void plinth_crypto_password_dummy(const char *password, size_t len);

/* Whether a hash that comes from elsewhere has the form and the costs of one that is verified. */
extern bool plinth_crypto_password_acceptable(const char *hash);

/* True when the string was made otherwise or with other costs than the settings' now. */
extern bool plinth_crypto_password_needs_rehash(const char *phc);

#endif /* PLINTH_CRYPTO_H */
