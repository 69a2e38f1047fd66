/* sources: src/session/jose.c src/session/jose_evp.c src/base/base64url.c */
/* libs: -lsodium -lcrypto */
/*
 * jose_test.c
 *		The examples of RFC 7515 (A.1 to A.3, A.5), 7517 (A.1), 7519 (3.1),
 *		7638 (3.1) and 8037 (A.1 to A.5), and what must neither verify nor be
 *		taken for a key.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/jose.h"
#include "session/jose_int.h"
#include "tap.h"

#define CLAIMS                                                                                     \
	"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnV"  \
	"lfQ"

/* RFC 7515 A.1, and RFC 7519 3.1 */
#define HS256_KEY                                                                                  \
	"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
#define HS256_TOKEN                                                                                \
	"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." CLAIMS                                             \
	".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

/* RFC 7515 A.2 */
#define RS256_N                                                                                    \
	"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4" \
	"d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5re" \
	"xMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxX" \
	"FvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
#define RS256_SIGNATURE                                                                            \
	"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5" \
	"jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb" \
	"1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QO" \
	"YEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
#define RS256_TOKEN "eyJhbGciOiJSUzI1NiJ9." CLAIMS "." RS256_SIGNATURE

/* RFC 7515 A.3 */
#define ES256_X "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define ES256_Y "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define ES256_TOKEN                                                                                \
	"eyJhbGciOiJFUzI1NiJ9." CLAIMS                                                                 \
	".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"

/* RFC 8037 A.1, A.2, A.4 */
#define EDDSA_D "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
#define EDDSA_X "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
#define EDDSA_TOKEN                                                                                \
	"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."                                    \
	"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"

/* RFC 7638 3.1, and RFC 7517 A.1 */
#define THUMB_N                                                                                    \
	"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP" \
	"ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY" \
	"368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0f" \
	"M4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
#define THUMBPRINT "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
#define JWK_EC_X "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"
#define JWK_EC_Y "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"

static PlinthJwk
jwk(const char *kty, const char *crv, const char *first, const char *second)
{
	PlinthJwk result;
	bool rsa = strcmp(kty, "RSA") == 0;

	memset(&result, 0, sizeof(result));
	snprintf(result.kty, sizeof(result.kty), "%s", kty);
	snprintf(result.crv, sizeof(result.crv), "%s", crv);
	snprintf(rsa ? result.n : result.x, rsa ? sizeof(result.n) : sizeof(result.x), "%s", first);
	snprintf(rsa ? result.e : result.y, rsa ? sizeof(result.e) : sizeof(result.y), "%s", second);
	return result;
}

static PlinthJoseKey *
key(const char *kty, const char *crv, const char *first, const char *second)
{
	PlinthJwk members = jwk(kty, crv, first, second);

	return plinth_jose_key_from_jwk(&members);
}

static bool
verify(const PlinthJoseKey *with, const char *token)
{
	PlinthJoseParts parts;
	uint8_t signature[PLINTH_JOSE_MAX_TOKEN];
	long len;

	if (with == NULL || !plinth_jose_split(token, strlen(token), &parts))
		return false;
	len = plinth_base64url_decode(parts.signature, parts.signature_len, signature);
	return len >= 0 && plinth_jose_verify(with, token, parts.signed_len, signature, (size_t) len);
}

/* Signs the same once more, and compares. */
static bool
signs(const PlinthJoseKey *with, const char *token)
{
	PlinthJoseParts parts;
	uint8_t signature[PLINTH_JOSE_MAX_SIGNATURE];
	char text[PLINTH_BASE64URL_LENGTH(PLINTH_JOSE_MAX_SIGNATURE) + 1];
	size_t len;

	if (!plinth_jose_split(token, strlen(token), &parts))
		return false;
	len = plinth_jose_sign(with, token, parts.signed_len, signature);
	plinth_base64url_encode(signature, len, text);
	return len > 0 && strcmp(text, parts.signature) == 0;
}

/* With each of the bits of signature and text changed, nothing verifies. */
static bool
all_flips_refused(const PlinthJoseKey *with, const char *token)
{
	PlinthJoseParts parts;
	uint8_t signature[PLINTH_JOSE_MAX_SIGNATURE];
	char *text = strdup(token);
	size_t len;
	bool refused = true;

	plinth_jose_split(token, strlen(token), &parts);
	len = (size_t) plinth_base64url_decode(parts.signature, parts.signature_len, signature);
	for (size_t bit = 0; bit < len * 8; bit++)
	{
		signature[bit / 8] ^= (uint8_t) (1 << bit % 8);
		refused = refused && !plinth_jose_verify(with, token, parts.signed_len, signature, len);
		signature[bit / 8] ^= (uint8_t) (1 << bit % 8);
	}
	for (size_t i = 0; i < parts.signed_len; i += 7)
	{
		text[i] ^= 1;
		refused = refused && !plinth_jose_verify(with, text, parts.signed_len, signature, len);
		text[i] ^= 1;
	}
	for (size_t shorter = 0; shorter < len; shorter++)
		refused = refused && !plinth_jose_verify(with, token, parts.signed_len, signature, shorter);
	free(text);
	return refused;
}

static void
check_vectors(void)
{
	uint8_t secret[64];
	uint8_t seed[32];
	PlinthJoseKey *hs;
	PlinthJoseKey *rs = key("RSA", "", RS256_N, "AQAB");
	PlinthJoseKey *es = key("EC", "P-256", ES256_X, ES256_Y);
	PlinthJoseKey *ed = key("OKP", "Ed25519", EDDSA_X, "");
	PlinthJoseKey *ed_private;
	PlinthJwk members;

	plinth_base64url_decode(HS256_KEY, strlen(HS256_KEY), secret);
	hs = plinth_jose_key_from_private(PLINTH_JOSE_HS256, secret, sizeof(secret));
	plinth_base64url_decode(EDDSA_D, strlen(EDDSA_D), seed);
	ed_private = plinth_jose_key_from_private(PLINTH_JOSE_EDDSA, seed, sizeof(seed));

	check(verify(hs, HS256_TOKEN), "RFC 7515 A.1, RFC 7519 3.1: HS256 verifies");
	check(signs(hs, HS256_TOKEN), "RFC 7515 A.1: HS256 signs the same");
	check(verify(rs, RS256_TOKEN), "RFC 7515 A.2: RS256 verifies");
	check(verify(es, ES256_TOKEN), "RFC 7515 A.3: ES256 verifies");
	check(verify(ed, EDDSA_TOKEN), "RFC 8037 A.5: EdDSA verifies");
	check(signs(ed_private, EDDSA_TOKEN), "RFC 8037 A.4: EdDSA signs the same");
	check(plinth_jose_key_public(ed_private, &members) && strcmp(members.x, EDDSA_X) == 0 &&
			  strcmp(members.kty, "OKP") == 0 && strcmp(members.crv, "Ed25519") == 0,
		  "RFC 8037 A.2: the public key of the private one");

	check(all_flips_refused(hs, HS256_TOKEN), "HS256: no bit can be changed");
	check(all_flips_refused(rs, RS256_TOKEN), "RS256: no bit can be changed");
	check(all_flips_refused(es, ES256_TOKEN), "ES256: no bit can be changed");
	check(all_flips_refused(ed, EDDSA_TOKEN), "EdDSA: no bit can be changed");

	check(!verify(es, HS256_TOKEN) && !verify(es, RS256_TOKEN) && !verify(es, EDDSA_TOKEN) &&
			  !verify(rs, ES256_TOKEN) && !verify(rs, HS256_TOKEN) && !verify(hs, RS256_TOKEN) &&
			  !verify(hs, ES256_TOKEN) && !verify(ed, ES256_TOKEN) && !verify(hs, EDDSA_TOKEN),
		  "a key verifies by its own algorithm only, whatever the token says");
	check(plinth_jose_sign(rs, "x", 1, secret) == 0 && plinth_jose_sign(es, "x", 1, secret) == 0 &&
			  plinth_jose_sign(ed, "x", 1, secret) == 0,
		  "a public key does not sign");
	plinth_jose_key_free(hs);
	plinth_jose_key_free(rs);
	plinth_jose_key_free(es);
	plinth_jose_key_free(ed);
	plinth_jose_key_free(ed_private);
	plinth_jose_key_free(NULL);
}

static void
check_thumbprint(PlinthJwk members, const char *expected, const char *what)
{
	char out[PLINTH_JOSE_THUMBPRINT_SIZE] = "";
	bool made = plinth_jose_thumbprint(&members, out);

	check(expected != NULL ? made && strcmp(out, expected) == 0 : !made, what);
}

static void
check_thumbprints(void)
{
	PlinthJoseKey *rs = key("RSA", "", THUMB_N, "AQAB");
	PlinthJoseKey *es = key("EC", "P-256", JWK_EC_X, JWK_EC_Y);

	check(rs != NULL && es != NULL, "RFC 7517 A.1: both public keys are keys");
	check_thumbprint(jwk("RSA", "", THUMB_N, "AQAB"), THUMBPRINT, "RFC 7638 3.1: thumbprint");
	check_thumbprint(jwk("OKP", "Ed25519", EDDSA_X, ""),
					 "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "RFC 8037 A.3: thumbprint");
	check_thumbprint(jwk("RSA", "", "a\",\"x\":\"b", "AQAB"), NULL,
					 "no member can say more than its value");
	check_thumbprint(jwk("EC", "P-256", JWK_EC_X, ""), NULL, "none without y");
	check_thumbprint(jwk("oct", "", "AAAA", ""), NULL, "none of a secret");
	plinth_jose_key_free(rs);
	plinth_jose_key_free(es);
}

static void
check_split(void)
{
	PlinthJoseParts parts;
	char longest[PLINTH_JOSE_MAX_TOKEN + 2];
	static const char *const bad[] = {"",          ".",    "..",    "a",      "a.b",
									  "a.b.",      ".b.c", "a..c",  "a.b.c.", "a.b.c.d",
									  "a.b.c.d.e", "....", ".a.b.c"};
	bool refused = true;

	check(plinth_jose_split("ab.cde.f", 8, &parts) && parts.header_len == 2 &&
			  parts.payload_len == 3 && parts.signature_len == 1 && parts.signed_len == 6 &&
			  *parts.signature == 'f',
		  "three parts are found");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refused = refused && !plinth_jose_split(bad[i], strlen(bad[i]), &parts);
	check(refused, "anything but three parts, none empty, is refused");
	check(!plinth_jose_split("eyJhbGciOiJub25lIn0." CLAIMS ".", strlen(CLAIMS) + 21, &parts),
		  "RFC 7515 A.5: an unsecured token is refused");
	memset(longest, 'a', sizeof(longest));
	longest[1] = longest[3] = '.';
	check(plinth_jose_split(longest, PLINTH_JOSE_MAX_TOKEN, &parts), "8192 bytes are split");
	check(!plinth_jose_split(longest, PLINTH_JOSE_MAX_TOKEN + 1, &parts), "8193 are refused");
}

static bool
no_key(const char *kty, const char *crv, const char *first, const char *second)
{
	PlinthJoseKey *made = key(kty, crv, first, second);

	plinth_jose_key_free(made);
	return made == NULL;
}

static void
check_bad_keys(void)
{
	PlinthJoseAlg alg;
	uint8_t secret[32] = {0};

	check(no_key("EC", "P-256", ES256_X, JWK_EC_Y), "a point that is not on the curve");
	check(no_key("EC", "P-256", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
				 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
		  "the point 0, 0");
	check(no_key("EC", "P-256", ES256_X, ""), "a point without y");
	check(no_key("EC", "P-256", "83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", ES256_Y),
		  "a coordinate that is too short");
	check(no_key("EC", "P-384", ES256_X, ES256_Y), "another curve");
	check(no_key("EC", "secp256k1", ES256_X, ES256_Y), "a curve that looks like it");
	check(no_key("RSA", "", THUMB_N, "AQ"), "RSA with exponent 1");
	check(no_key("RSA", "", THUMB_N, "Ag"), "RSA with exponent 2");
	check(no_key("RSA", "", THUMB_N, ""), "RSA without exponent");
	check(no_key("RSA", "", THUMB_N, "AAEAAQ"), "RSA with a leading zero");
	check(no_key("RSA", "", "AQAB", "AQAB"), "RSA with a modulus of 17 bits");
	check(no_key("RSA", "", "", "AQAB"), "RSA without modulus");
	check(no_key("OKP", "Ed25519", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ""),
		  "an Ed25519 point of small order");
	check(no_key("OKP", "Ed25519", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ""),
		  "the neutral Ed25519 point");
	check(no_key("OKP", "X25519", EDDSA_X, ""), "a key for agreement");
	check(no_key("OKP", "Ed448", EDDSA_X, ""), "another curve of Edwards'");
	check(no_key("oct", "", "AAAA", ""), "a secret is no public key");
	check(plinth_jose_key_from_private(PLINTH_JOSE_HS256, secret, 31) == NULL,
		  "a secret of 31 bytes");
	check(plinth_jose_key_from_private(PLINTH_JOSE_EDDSA, secret, 31) == NULL,
		  "a seed of 31 bytes");
	check(plinth_jose_key_from_private(PLINTH_JOSE_ES256, secret, 32) == NULL, "no PKCS #8");
	check(!plinth_jose_alg_parse("none", &alg) && !plinth_jose_alg_parse("None", &alg) &&
			  !plinth_jose_alg_parse("hs256", &alg) && !plinth_jose_alg_parse("RS512", &alg) &&
			  !plinth_jose_alg_parse("", &alg) && !plinth_jose_alg_parse("PS256", &alg),
		  "no other algorithm, in no other spelling");
}

/* Makes a key, and takes it through everything that happens to one. */
static void
check_round_trip(PlinthJoseAlg alg)
{
	PlinthJoseKey *made = plinth_jose_key_generate(alg);
	PlinthJoseKey *stored;
	PlinthJoseKey *public_key = NULL;
	PlinthJoseKey *other = plinth_jose_key_generate(alg);
	PlinthJwk members;
	PlinthJoseAlg parsed;
	uint8_t private_part[PLINTH_JOSE_MAX_PRIVATE + 1];
	uint8_t signature[PLINTH_JOSE_MAX_SIGNATURE];
	char name[100];
	bool good = true;
	size_t len = plinth_jose_key_private(made, private_part);

	stored = plinth_jose_key_from_private(alg, private_part, len);
	if (plinth_jose_key_public(made, &members))
		public_key = plinth_jose_key_from_jwk(&members);
	snprintf(name, sizeof(name), "%s: a new key is stored and read", plinth_jose_alg_name(alg));
	check(stored != NULL && (public_key != NULL || alg == PLINTH_JOSE_HS256), name);

	/* Often, since a number may need fewer bytes than it has places. */
	for (int i = 0; i < 300 && good; i++)
	{
		size_t signature_len = plinth_jose_sign(stored, &i, sizeof(i), signature);

		good = signature_len > 0 &&
			   plinth_jose_verify(made, &i, sizeof(i), signature, signature_len) &&
			   (public_key == NULL ||
				plinth_jose_verify(public_key, &i, sizeof(i), signature, signature_len)) &&
			   !plinth_jose_verify(other, &i, sizeof(i), signature, signature_len) &&
			   !plinth_jose_verify(made, &i, sizeof(i) - 1, signature, signature_len);
	}
	snprintf(name, sizeof(name), "%s: what it signs, it verifies, and no other does",
			 plinth_jose_alg_name(alg));
	check(good, name);
	snprintf(name, sizeof(name), "%s: is called so", plinth_jose_alg_name(alg));
	check(plinth_jose_alg_parse(plinth_jose_alg_name(alg), &parsed) && parsed == alg &&
			  plinth_jose_key_alg(made) == alg,
		  name);
	private_part[len] = 0;
	snprintf(name, sizeof(name), "%s: a private key has an end", plinth_jose_alg_name(alg));
	check(alg == PLINTH_JOSE_HS256 ||
			  plinth_jose_key_from_private(alg, private_part, len + 1) == NULL,
		  name);
	plinth_jose_key_free(made);
	plinth_jose_key_free(stored);
	plinth_jose_key_free(public_key);
	plinth_jose_key_free(other);
}

int
main(void)
{
	if (sodium_init() < 0)
		return 1;
	check_vectors();
	check_thumbprints();
	check_split();
	check_bad_keys();
	for (int alg = PLINTH_JOSE_HS256; alg <= PLINTH_JOSE_RS256; alg++)
		check_round_trip((PlinthJoseAlg) alg);
	return tap_done();
}
