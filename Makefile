# plinth: plain PGXS.  `make`, `make install` and `make installcheck` work as
# in any extension; `make check` and `make demo` set everything up themselves.

EXTENSION    = plinth
EXTVERSION   = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" plinth.control)
MODULE_big   = plinth
OBJS         = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

DATA_built   = build/plinth--$(EXTVERSION).sql
DATA         = $(wildcard sql/updates/*--*.sql sql/frozen/*--*.sql)
EXTRA_CLEAN  = build

# Regression and isolation tests run under `make installcheck`.
REGRESS      = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test
ISOLATION    = $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation

PG_CONFIG   ?= pg_config
PKG_CONFIG  ?= pkg-config
LIBS_PC      = $(shell $(PKG_CONFIG) --exists libmongoc-1.0 && echo libmongoc-1.0 || echo mongoc2) libsodium

# PostgreSQL fixes the signatures of callbacks, so unused parameters are not
# a defect here.  Packagers may pass WERROR= for compilers yet to come.
WERROR      ?= -Werror
PG_CFLAGS    = -Wall -Wextra $(WERROR) -Wshadow -Wmissing-prototypes \
               -Wno-unused-parameter -Wno-sign-compare -fvisibility=hidden
# 15 leaves PGDLLEXPORT empty, which hides even the functions that it marks.
PG_CPPFLAGS  = -Isrc '-DPGDLLEXPORT=__attribute__((visibility("default")))' \
               $(patsubst -I%,-isystem %,$(shell $(PKG_CONFIG) --cflags $(LIBS_PC)))
SHLIB_LINK   = $(shell $(PKG_CONFIG) --libs $(LIBS_PC)) -lpthread -lresolv

PGXS := $(shell $(PG_CONFIG) --pgxs)
# Bitcode for inlining into JIT-compiled queries would serve no function here.
override with_llvm = no
include $(PGXS)

# PostgreSQL's own headers are not held to this project's warnings.
override CPPFLAGS := $(subst -I$(includedir_server),-isystem $(includedir_server),$(CPPFLAGS))

SQL_PARTS = $(sort $(wildcard sql/schema/*.sql)) $(sort $(wildcard sql/functions/*.sql))

build/plinth--$(EXTVERSION).sql: $(SQL_PARTS) plinth.control
	@mkdir -p build
	{ printf '%s\n' '\echo Use "CREATE EXTENSION plinth" to load this file. \quit'; \
	  cat $(SQL_PARTS); \
	  echo "NOTIFY pgrst, 'reload schema';"; } > $@

# Objects depend on every header: there are few, and a stale object is worse
# than a rebuilt one.
$(OBJS): $(wildcard src/*.h src/*/*.h)
