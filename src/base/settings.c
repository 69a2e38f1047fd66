/*
 * settings.c
 *		Every plinth.* setting of every room, in a table for each type.
 *
 * Settings that guard something (costs of a password hash, trusted peers,
 * bounds of memory) are SIGHUP or POSTMASTER, so that no session can lower
 * them for itself; there is none that an ordinary user may set.  Those of JWTs
 * and of mails are SUSET, so that each database can have its own.  The one
 * setting that is no setting, plinth.context, is defined in context.c.
 */
#include "postgres.h"

#include <limits.h>

#include "base/base.h"
#include "base/internal.h"
#include "utils/guc.h"

char *plinth_setting_root_key_file;
int plinth_setting_max_databases;
int plinth_setting_max_workers;
int plinth_setting_worker_restart_delay;

char *plinth_setting_role_anon;
char *plinth_setting_role_authenticated;
char *plinth_setting_trusted_authenticators;
char *plinth_setting_trusted_proxies;
char *plinth_setting_allowed_origins;
char *plinth_setting_session_header;
char *plinth_setting_api_key_header;
char *plinth_setting_session_cookie;

int plinth_setting_argon2_memory;
int plinth_setting_argon2_ops;
int plinth_setting_password_max_concurrent;
int plinth_setting_password_min_length;
bool plinth_setting_require_verified_email;
int plinth_setting_recent_sign_in;
int plinth_setting_email_verify_lifetime;
int plinth_setting_password_reset_lifetime;
int plinth_setting_magic_link_lifetime;
int plinth_setting_email_code_lifetime;
int plinth_setting_email_change_lifetime;
int plinth_setting_outbox_max_attempts;
int plinth_setting_outbox_retention;
int plinth_setting_session_lifetime;
int plinth_setting_session_idle_timeout;
int plinth_setting_session_memory;
int plinth_setting_session_flush_interval;
int plinth_setting_session_retention;
int plinth_setting_api_key_retention;
int plinth_setting_sessions_per_user;
int plinth_setting_jwt_lifetime;
int plinth_setting_jwt_leeway;
int plinth_setting_refresh_grace;
char *plinth_setting_jwt_issuer;
char *plinth_setting_jwt_audience;
char *plinth_setting_signing_key_directory;

int plinth_setting_limits_memory;
int plinth_setting_limits_save_interval;
int plinth_setting_meter_flush_interval;
int plinth_setting_cache_memory;
int plinth_setting_sync_memory;
int plinth_setting_sync_wal_keep;
int plinth_setting_sync_batch_rows;
int plinth_setting_sync_batch_bytes;
int plinth_setting_sync_timeout;
int plinth_setting_sync_connect_timeout;
int plinth_setting_sync_retry_max;
int plinth_setting_sync_zombie_window;
int plinth_setting_sync_checkpoint_interval;
int plinth_setting_sync_lock_timeout;
int plinth_setting_sync_snapshot_rate;
int plinth_setting_sync_read_timeout;
int plinth_setting_sync_file_max;
int plinth_setting_file_grace;
int plinth_setting_file_upload_lifetime;
int plinth_setting_sync_lag_alert;
int plinth_setting_sync_after_promotion;

typedef struct IntSetting
{
	const char *name;
	const char *description;
	int *variable;
	int boot;
	int min;
	int max;
	GucContext context;
	int flags;
} IntSetting;

typedef struct BoolSetting
{
	const char *name;
	const char *description;
	bool *variable;
	bool boot;
	GucContext context;
} BoolSetting;

typedef struct EnumSetting
{
	const char *name;
	const char *description;
	int *variable;
	int boot;
	const struct config_enum_entry *options;
	GucContext context;
} EnumSetting;

typedef struct StringSetting
{
	const char *name;
	const char *description;
	char **variable;
	const char *boot;
	GucContext context;
	int flags;
	GucStringCheckHook check;
} StringSetting;

static const IntSetting int_settings[] = {
	{"plinth.max_databases", "Most databases of this server that may use the extension.",
	 &plinth_setting_max_databases, 64, 1, 10000, PGC_POSTMASTER, 0},
	{"plinth.max_workers", "Most per-database workers, all databases together.",
	 &plinth_setting_max_workers, 32, 1, 1000, PGC_POSTMASTER, 0},
	{"plinth.worker_restart_delay", "Time before a worker that failed is started again.",
	 &plinth_setting_worker_restart_delay, 1000, 10, 3600000, PGC_SIGHUP, GUC_UNIT_MS},

	{"plinth.argon2_memory", "Memory that hashing one password takes.",
	 &plinth_setting_argon2_memory, 65536, 8192, 1048576, PGC_SIGHUP, GUC_UNIT_KB},
	{"plinth.argon2_ops", "Passes over that memory when hashing a password.",
	 &plinth_setting_argon2_ops, 2, 1, 64, PGC_SIGHUP, 0},
	{"plinth.password_max_concurrent", "Most passwords that are hashed at the same time.",
	 &plinth_setting_password_max_concurrent, 4, 1, 1024, PGC_POSTMASTER, 0},
	{"plinth.password_min_length", "Fewest characters of a new password.",
	 &plinth_setting_password_min_length, 8, 1, 1024, PGC_SIGHUP, 0},
	{"plinth.recent_sign_in", "Time for which a sign-in is recent.", &plinth_setting_recent_sign_in,
	 900, 1, 86400, PGC_SUSET, GUC_UNIT_S},
	{"plinth.email_verify_lifetime", "Time for which a token that verifies an address is good.",
	 &plinth_setting_email_verify_lifetime, 86400, 60, 30 * 86400, PGC_SUSET, GUC_UNIT_S},
	{"plinth.password_reset_lifetime", "Time for which a token that resets a password is good.",
	 &plinth_setting_password_reset_lifetime, 3600, 60, 7 * 86400, PGC_SUSET, GUC_UNIT_S},
	{"plinth.magic_link_lifetime", "Time for which a token that signs in is good.",
	 &plinth_setting_magic_link_lifetime, 900, 60, 86400, PGC_SUSET, GUC_UNIT_S},
	{"plinth.email_code_lifetime", "Time for which a code that signs in is good.",
	 &plinth_setting_email_code_lifetime, 600, 60, 3600, PGC_SUSET, GUC_UNIT_S},
	{"plinth.email_change_lifetime", "Time for which tokens that change an address are good.",
	 &plinth_setting_email_change_lifetime, 86400, 60, 30 * 86400, PGC_SUSET, GUC_UNIT_S},
	{"plinth.outbox_max_attempts", "How often a message is handed out before it is given up.",
	 &plinth_setting_outbox_max_attempts, 10, 1, 1000, PGC_SUSET, 0},
	{"plinth.outbox_retention", "Time for which messages stay in the outbox, sent or not.",
	 &plinth_setting_outbox_retention, 7 * 86400, 60, INT_MAX, PGC_SUSET, GUC_UNIT_S},
	{"plinth.session_lifetime", "Time after which a session ends, used or not.",
	 &plinth_setting_session_lifetime, 30 * 86400, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S},
	{"plinth.session_idle_timeout", "Time without use after which a session ends.",
	 &plinth_setting_session_idle_timeout, 7 * 86400, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S},
	{"plinth.session_memory", "Shared memory of the sessions in use.",
	 &plinth_setting_session_memory, 32768, 128, MAX_KILOBYTES, PGC_POSTMASTER, GUC_UNIT_KB},
	{"plinth.session_flush_interval",
	 "Time after which it is written when sessions were last in use.",
	 &plinth_setting_session_flush_interval, 60000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"plinth.session_retention", "Time after which sessions that have ended are deleted.",
	 &plinth_setting_session_retention, 30 * 86400, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S},
	{"plinth.api_key_retention", "Time after which API keys that have ended are deleted.",
	 &plinth_setting_api_key_retention, 30 * 86400, 0, INT_MAX, PGC_SUSET, GUC_UNIT_S},
	{"plinth.sessions_per_user", "Most sessions that a user has at a time; 0: any number.",
	 &plinth_setting_sessions_per_user, 0, 0, 10000, PGC_SIGHUP, 0},
	{"plinth.jwt_lifetime", "Time for which an access token is good.", &plinth_setting_jwt_lifetime,
	 900, 1, 86400, PGC_SUSET, GUC_UNIT_S},
	{"plinth.jwt_leeway", "By how much clocks may differ where the times of a JWT are checked.",
	 &plinth_setting_jwt_leeway, 30, 0, 300, PGC_SUSET, GUC_UNIT_S},
	{"plinth.refresh_grace", "Time for which a refresh token that was used still answers.",
	 &plinth_setting_refresh_grace, 30, 0, 3600, PGC_SUSET, GUC_UNIT_S},

	{"plinth.limits_memory", "Shared memory of rate limits, leases and meters.",
	 &plinth_setting_limits_memory, 16384, 256, MAX_KILOBYTES, PGC_POSTMASTER, GUC_UNIT_KB},
	{"plinth.limits_save_interval", "Time between two saves of the rate limits.",
	 &plinth_setting_limits_save_interval, 2000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"plinth.meter_flush_interval", "Time after which usage is written to its table.",
	 &plinth_setting_meter_flush_interval, 1000, 10, 3600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"plinth.cache_memory", "Shared memory of the caches.", &plinth_setting_cache_memory, 65536,
	 1024, MAX_KILOBYTES, PGC_POSTMASTER, GUC_UNIT_KB},

	{"plinth.sync_memory", "Memory of a database's decoder, and of each lane.",
	 &plinth_setting_sync_memory, 65536, 1024, MAX_KILOBYTES, PGC_SIGHUP, GUC_UNIT_KB},
	{"plinth.sync_wal_keep", "WAL beyond which a lane that is behind moves its keys to a table.",
	 &plinth_setting_sync_wal_keep, 1024 * 1024, 1024, MAX_KILOBYTES, PGC_SIGHUP, GUC_UNIT_KB},
	{"plinth.sync_batch_rows", "Most documents in one write command.",
	 &plinth_setting_sync_batch_rows, 1000, 1, 100000, PGC_SIGHUP, 0},
	{"plinth.sync_batch_bytes", "Size of a write command above which no document is added.",
	 &plinth_setting_sync_batch_bytes, 4096, 1, 32768, PGC_SIGHUP, GUC_UNIT_KB},
	{"plinth.sync_timeout", "Time a command may take in MongoDB, and on its way.",
	 &plinth_setting_sync_timeout, 30000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"plinth.sync_connect_timeout", "Time that connecting to MongoDB may take.",
	 &plinth_setting_sync_connect_timeout, 5000, 100, 600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"plinth.sync_retry_max", "Longest time between two tries.", &plinth_setting_sync_retry_max,
	 60000, 100, 86400000, PGC_SIGHUP, GUC_UNIT_MS},
	{"plinth.sync_zombie_window",
	 "Time after which the keys of a write whose outcome is unknown are written again.",
	 &plinth_setting_sync_zombie_window, 60000, 100, 86400000 / 100, PGC_SIGHUP, GUC_UNIT_MS},
	{"plinth.sync_checkpoint_interval", "Time between two fences in a collection.",
	 &plinth_setting_sync_checkpoint_interval, 1000, 10, 3600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"plinth.sync_lock_timeout", "Time to wait for a table's lock before others go first.",
	 &plinth_setting_sync_lock_timeout, 500, 1, 3600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"plinth.sync_snapshot_rate", "Rows a second that snapshots of a mapping send; 0 for no limit.",
	 &plinth_setting_sync_snapshot_rate, 0, 0, 1000000000, PGC_SIGHUP, 0},
	{"plinth.sync_read_timeout", "Time that reading a batch of rows may take; 0 for no limit.",
	 &plinth_setting_sync_read_timeout, 300000, 0, 86400000, PGC_SIGHUP, GUC_UNIT_MS},
	{"plinth.sync_file_max", "Largest value of a column that sync_file() copies.",
	 &plinth_setting_sync_file_max, 64 * 1024, 1, 1024 * 1024, PGC_SUSET, GUC_UNIT_KB},
	{"plinth.file_grace", "Time that a file's bytes outlive the file, for those who read it.",
	 &plinth_setting_file_grace, 600000, 0, 86400000, PGC_SIGHUP, GUC_UNIT_MS},
	{"plinth.file_upload_lifetime", "Time after which a file that was begun and left is removed.",
	 &plinth_setting_file_upload_lifetime, 86400, 1, 30 * 86400, PGC_SIGHUP, GUC_UNIT_S},
	{"plinth.sync_lag_alert", "Lag of a mapping above which it is told; 0 for never.",
	 &plinth_setting_sync_lag_alert, 300000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
};

static const BoolSetting bool_settings[] = {
	{"plinth.require_verified_email", "Lets only users whose e-mail address is verified sign in.",
	 &plinth_setting_require_verified_email, false, PGC_SUSET},
};

static const struct config_enum_entry after_promotion[] = {
	{"pause", PLINTH_AFTER_PROMOTION_PAUSE, false},
	{"resync", PLINTH_AFTER_PROMOTION_RESYNC, false},
	{NULL, 0, false},
};

static const EnumSetting enum_settings[] = {
	{"plinth.sync_after_promotion", "What sync does after this server was promoted.",
	 &plinth_setting_sync_after_promotion, PLINTH_AFTER_PROMOTION_PAUSE, after_promotion,
	 PGC_SIGHUP},
};

static bool check_role_name(char **newval, void **extra, GucSource source);
static bool check_not_empty(char **newval, void **extra, GucSource source);
static bool check_header_name(char **newval, void **extra, GucSource source);

static const StringSetting string_settings[] = {
	{"plinth.root_key_file", "File that holds the root key.", &plinth_setting_root_key_file, "",
	 PGC_POSTMASTER, GUC_SUPERUSER_ONLY, NULL},
	{"plinth.role_anon", "Role of a request without an identity.", &plinth_setting_role_anon,
	 "anon", PGC_SIGHUP, 0, check_role_name},
	{"plinth.role_authenticated", "Role of a request with an identity.",
	 &plinth_setting_role_authenticated, "authenticated", PGC_SIGHUP, 0, check_role_name},
	{"plinth.jwt_issuer", "Issuer (iss) of the access tokens made here.",
	 &plinth_setting_jwt_issuer, "plinth", PGC_SUSET, 0, check_not_empty},
	{"plinth.jwt_audience", "Audience (aud) of the access tokens made here.",
	 &plinth_setting_jwt_audience, "plinth", PGC_SUSET, 0, check_not_empty},
	{"plinth.signing_key_directory", "Directory of the files that hold signing keys.",
	 &plinth_setting_signing_key_directory, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL},
	{"plinth.trusted_authenticators",
	 "Login roles whose request.jwt.claims are believed, separated by commas.",
	 &plinth_setting_trusted_authenticators, "", PGC_SIGHUP, GUC_LIST_INPUT,
	 plinth_base_check_name_list},
	{"plinth.trusted_proxies",
	 "Addresses and networks whose forwarded headers are believed, separated by commas.",
	 &plinth_setting_trusted_proxies, "", PGC_SIGHUP, GUC_LIST_INPUT, plinth_base_check_networks},
	{"plinth.allowed_origins",
	 "Origins of the pages whose requests may change something by a cookie, separated by commas.",
	 &plinth_setting_allowed_origins, "", PGC_SIGHUP, GUC_LIST_INPUT, plinth_base_check_origins},
	{"plinth.session_header", "HTTP header that carries a session's token.",
	 &plinth_setting_session_header, "X-Plinth-Session", PGC_SIGHUP, 0, check_header_name},
	{"plinth.api_key_header", "HTTP header that carries an API key.",
	 &plinth_setting_api_key_header, "X-API-Key", PGC_SIGHUP, 0, check_header_name},
	{"plinth.session_cookie", "Cookie that carries a session's token.",
	 &plinth_setting_session_cookie, "__Host-plinth_session", PGC_SIGHUP, 0, check_header_name},
};

static bool
check_role_name(char **newval, void **extra, GucSource source)
{
	size_t len = strlen(*newval);

	if (len > 0 && len < NAMEDATALEN)
		return true;
	GUC_check_errdetail("A role name has 1 to %d bytes.", NAMEDATALEN - 1);
	return false;
}

static bool
check_not_empty(char **newval, void **extra, GucSource source)
{
	size_t len = strlen(*newval);

	if (len > 0 && len <= 1000)
		return true;
	GUC_check_errdetail("It has 1 to 1000 bytes.");
	return false;
}

static bool
check_header_name(char **newval, void **extra, GucSource source)
{
	if (plinth_base_is_header_name(*newval))
		return true;
	GUC_check_errdetail("It has 1 to 100 letters, digits and signs that HTTP allows in a name.");
	return false;
}

void
plinth_base_settings_init(void)
{
	for (int i = 0; i < lengthof(int_settings); i++)
	{
		const IntSetting *s = &int_settings[i];

		DefineCustomIntVariable(s->name, s->description, NULL, s->variable, s->boot, s->min, s->max,
								s->context, s->flags, NULL, NULL, NULL);
	}
	for (int i = 0; i < lengthof(bool_settings); i++)
	{
		const BoolSetting *s = &bool_settings[i];

		DefineCustomBoolVariable(s->name, s->description, NULL, s->variable, s->boot, s->context, 0,
								 NULL, NULL, NULL);
	}
	for (int i = 0; i < lengthof(enum_settings); i++)
	{
		const EnumSetting *s = &enum_settings[i];

		DefineCustomEnumVariable(s->name, s->description, NULL, s->variable, s->boot, s->options,
								 s->context, 0, NULL, NULL, NULL);
	}
	for (int i = 0; i < lengthof(string_settings); i++)
	{
		const StringSetting *s = &string_settings[i];

		DefineCustomStringVariable(s->name, s->description, NULL, s->variable, s->boot, s->context,
								   s->flags, s->check, NULL, NULL);
	}
	MarkGUCPrefixReserved("plinth");
}
