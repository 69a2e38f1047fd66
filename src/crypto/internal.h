/*
 * internal.h
 *		What the files of room crypto share among themselves.
 */
#ifndef PLINTH_CRYPTO_INTERNAL_H
#define PLINTH_CRYPTO_INTERNAL_H

/* rootkey.c: reads plinth.root_key_file, in the postmaster; FATAL when it cannot be used. */
extern void plinth_crypto_root_key_load(void);

/* rootkey.c: the key of a purpose; ERRORs without a root key.  Wipe it after use. */
extern void plinth_crypto_derive_key(const char *purpose, uint8 key[PLINTH_HASH_BYTES]);

/* bcrypt.c: the cost of a hash, 0 for what is none; and whether the password fits one. */
extern int plinth_crypto_bcrypt_cost(const char *hash);
extern bool plinth_crypto_bcrypt_verify(const char *hash, const char *password, size_t len);

/* password.c: declares its shared memory. */
extern void plinth_crypto_password_init(void);

#endif /* PLINTH_CRYPTO_INTERNAL_H */
