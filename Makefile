# plinth: plain PGXS.  `make`, `make install` and `make installcheck` work as
# in any extension; `make check` and `make demo` set everything up themselves.

# These need no PostgreSQL to begin with (they install it), and PGXS defines a
# `check` of its own, which only says that it is not supported.  So PGXS is
# left out where one of them is asked for; other goals beside them go to a
# make of their own.
OWN_GOALS    = check check-all demo demo-stop bench
ifneq ($(filter $(OWN_GOALS),$(MAKECMDGOALS)),)

.NOTPARALLEL:
.PHONY: $(MAKECMDGOALS)
check:
	@test/check.sh
check-all:
	@test/check.sh --all
demo:
	@examples/forum/demo.sh start
demo-stop:
	@examples/forum/demo.sh stop
bench:
	@bench/run.sh
OTHER_GOALS  = $(filter-out $(OWN_GOALS),$(MAKECMDGOALS))
ifneq ($(OTHER_GOALS),)
$(OTHER_GOALS):
	$(MAKE) $@
endif

else

EXTENSION    = plinth
EXTVERSION   = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" plinth.control)
MODULE_big   = plinth
OBJS         = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

UPDATES      = $(patsubst sql/updates/%.sql,build/plinth--%.sql,$(wildcard sql/updates/*--*.sql))
DATA_built   = build/plinth--$(EXTVERSION).sql $(UPDATES)
DATA         = $(wildcard sql/frozen/plinth--*.sql)
EXTRA_CLEAN  = build

# Regression and isolation tests run under `make installcheck`.
REGRESS      = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --load-extension=plinth
ISOLATION    = $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=plinth

PG_CONFIG   ?= pg_config
PKG_CONFIG  ?= pkg-config
LIBS_PC      = $(shell $(PKG_CONFIG) --exists libmongoc-1.0 && echo libmongoc-1.0 || echo mongoc2) libsodium openssl

# PostgreSQL fixes the signatures of callbacks, so unused parameters are not
# a defect here.  Packagers may pass WERROR= for compilers yet to come.
WERROR      ?= -Werror
PG_CFLAGS    = -Wall -Wextra $(WERROR) -Wshadow -Wmissing-prototypes \
               -Wno-unused-parameter -Wno-sign-compare -fvisibility=hidden
# 15 leaves PGDLLEXPORT empty, which hides even the functions that it marks.
PG_CPPFLAGS  = -Isrc '-DPGDLLEXPORT=__attribute__((visibility("default")))' \
               $(patsubst -I%,-isystem %,$(shell $(PKG_CONFIG) --cflags $(LIBS_PC)))
SHLIB_LINK   = $(shell $(PKG_CONFIG) --libs $(LIBS_PC)) -lcrypt -lpthread -lresolv

PGXS := $(shell $(PG_CONFIG) --pgxs)
# Bitcode for inlining into JIT-compiled queries would serve no function here.
override with_llvm = no
include $(PGXS)

# From PostgreSQL 16 on expected output is not looked for beside the input.
ifneq ($(MAJORVERSION),15)
REGRESS_OPTS += --expecteddir=.
ISOLATION_OPTS += --expecteddir=test/isolation
endif

# PostgreSQL's own headers are not held to this project's warnings.
override CPPFLAGS := $(subst -I$(includedir_server),-isystem $(includedir_server),$(CPPFLAGS))

# The PostgreSQL may have been built by a newer compiler than there is here.
NEW_WARNINGS = $(filter -Wmissing-variable-declarations,$(CFLAGS))
ifneq ($(NEW_WARNINGS),)
ifneq ($(shell $(CC) $(NEW_WARNINGS) -E -x c /dev/null >/dev/null 2>&1 && echo known),known)
override CFLAGS := $(filter-out $(NEW_WARNINGS),$(CFLAGS))
endif
endif

SQL_PARTS = $(sort $(wildcard sql/schema/*.sql)) $(sort $(wildcard sql/functions/*.sql))

build/plinth--$(EXTVERSION).sql: $(SQL_PARTS) plinth.control
	@mkdir -p build
	{ printf '%s\n' '\echo Use "CREATE EXTENSION plinth" to load this file. \quit'; \
	  cat $(SQL_PARTS); \
	  echo "NOTIFY pgrst, 'reload schema';"; } > $@

# An update to this version ends with its functions; any other carries its own.
build/plinth--%.sql: sql/updates/%.sql $(SQL_PARTS) plinth.control
	@mkdir -p build
	{ printf '%s\n' '\echo Use "ALTER EXTENSION plinth UPDATE" to load this file. \quit'; \
	  cat $< $(if $(filter %--$(EXTVERSION),$*),$(sort $(wildcard sql/functions/*.sql))); \
	  echo "NOTIFY pgrst, 'reload schema';"; } > $@

# Objects depend on every header: there are few, and a stale object is worse
# than a rebuilt one.
$(OBJS): $(wildcard src/*.h src/*/*.h)

endif
