/* sources: src/base/ids.c */
/*
 * ids_test.c
 *		RFC 9562's vector of UUID version 7, and ULID's layout.
 */
#include <stdio.h>
#include <string.h>

#include "base/ids.h"
#include "tap.h"

int
main(void)
{
	/* RFC 9562 appendix A.6: 017F22E2-79B0-7CC3-98C4-DC0C0C07398F */
	static const uint8_t vector[16] = {0x01, 0x7f, 0x22, 0xe2, 0x79, 0xb0, 0x7c, 0xc3,
									   0x98, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f};
	static const uint8_t vector_random[8] = {0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f};
	static const uint8_t ones[10] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const uint8_t zeros[10] = {0};
	static const uint8_t mixed[10] = {0x08, 0x86, 0x42, 0x98, 0xe8, 0x4a, 0x96, 0xc6, 0xb9, 0xf0};
	uint8_t uuid[16];
	uint8_t later[16];
	char ulid[27];

	plinth_uuid_v7_build(UINT64_C(0x017F22E279B0), 0xcc3, vector_random, uuid);
	check(memcmp(uuid, vector, 16) == 0, "the UUID of RFC 9562, appendix A.6");
	plinth_uuid_v7_build(UINT64_C(0xffffffffffff), 0xffff, ones, uuid);
	check(uuid[6] == 0x7f && uuid[8] == 0xbf, "version and variant stand when all bits are set");
	plinth_uuid_v7_build(0, 0, zeros, uuid);
	check(uuid[6] == 0x70 && uuid[8] == 0x80, "version and variant stand when none is");
	plinth_uuid_v7_build(1000, 4095, ones, uuid);
	plinth_uuid_v7_build(1001, 0, zeros, later);
	check(memcmp(uuid, later, 16) < 0, "a later millisecond sorts after a later fraction");
	plinth_uuid_v7_build(1000, 1, zeros, later);
	plinth_uuid_v7_build(1000, 0, ones, uuid);
	check(memcmp(uuid, later, 16) < 0, "a later fraction sorts after later random bits");

	/* 1469918176385 ms is the time of the example in the ULID specification's README. */
	plinth_ulid_build(UINT64_C(1469918176385), zeros, ulid);
	check(strcmp(ulid, "01ARYZ6S410000000000000000") == 0, "the time part of a ULID");
	plinth_ulid_build(UINT64_C(0xffffffffffff), ones, ulid);
	check(strcmp(ulid, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ") == 0, "the greatest ULID");
	plinth_ulid_build(0, zeros, ulid);
	check(strcmp(ulid, "00000000000000000000000000") == 0, "the least ULID");
	plinth_ulid_build(0, mixed, ulid);
	check(strcmp(ulid, "0000000000123456789ABCDEFG") == 0, "the random part of a ULID");

	return tap_done();
}
