# recd: see README.md. `make` builds build/recd and build/recctl; `make help` lists the rest.
#
# One static library per room (ingest, state, learn, model, daemon); a unit test links its own room and those the room may use, so that the
# include arrows of docs/ARCHITECTURE.md hold at link time too.

B      := $(or $(BUILD),build$(if $(SAN),-$(subst $(comma),-,$(SAN))))
comma  := ,
CC     ?= gcc
CXX    ?= g++
OPT    ?= -O2 -g
WARN   := -Wall -Wextra -Wshadow -Wconversion -Werror
SANF   := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)

PKGS   := simdjson libconfig libmicrohttpd libcurl jansson zlib libsystemd
have    = $(shell pkg-config --exists $(1) 2>/dev/null && echo yes || echo no)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)

CPPFLAGS += -I. -D_GNU_SOURCE -MMD -MP $(PKG_CFLAGS)
CFLAGS   += -std=c17 $(OPT) $(WARN) $(SANF) -ffp-contract=off -pthread
CXXFLAGS += -std=c++17 $(OPT) $(WARN) $(SANF) -pthread
LDFLAGS  += $(SANF) -pthread
LDLIBS   += $(PKG_LIBS) -lstdc++ -lm

objs = $(patsubst %,$(B)/obj/%.o,$(wildcard $(1)))
INGEST_O := $(call objs,ingest/*.c ingest/*.cpp)
STATE_O  := $(call objs,trainer/state/*.c)
LEARN_O  := $(call objs,trainer/learn/*.c)
MODEL_O  := $(call objs,trainer/model/*.c)
DAEMON_O := $(filter-out %/recd.c.o,$(call objs,daemon/*.c))
RECCTL_O := $(filter-out %/recctl.c.o,$(call objs,daemon/recctl/*.c))

LIB_ingest := $(B)/lib/libingest.a
LIB_state  := $(B)/lib/libstate.a
LIB_learn  := $(B)/lib/liblearn.a
LIB_model  := $(B)/lib/libmodel.a
LIB_daemon := $(B)/lib/libdaemon.a
LIB_recctl := $(B)/lib/librecctl.a
# what a room links: itself first, then what it may use
USES_ingest := $(LIB_ingest)
USES_state  := $(LIB_state) $(LIB_ingest)
USES_learn  := $(LIB_learn) $(USES_state)
USES_model  := $(LIB_model) $(USES_learn)
USES_daemon := $(LIB_daemon) $(USES_model)
USES_recctl := $(LIB_recctl) $(USES_daemon)

all: $(B)/recd $(B)/recctl

$(LIB_ingest): $(INGEST_O)
$(LIB_state): $(STATE_O)
$(LIB_learn): $(LEARN_O)
$(LIB_model): $(MODEL_O)
$(LIB_daemon): $(DAEMON_O)
$(LIB_recctl): $(RECCTL_O)
$(B)/lib/%.a:
	@mkdir -p $(@D)
	@rm -f $@
	@ar rcs $@ $^

$(B)/obj/%.c.o: %.c
	@mkdir -p $(@D)
	@echo "  CC   $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@
$(B)/obj/%.cpp.o: %.cpp
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	@$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c $< -o $@

$(B)/recd: $(B)/obj/daemon/recd.c.o $(USES_daemon)
	@echo "  LD   $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/recctl: $(B)/obj/daemon/recctl/recctl.c.o $(USES_recctl)
	@echo "  LD   $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# unit tests: tests/unit/<room>/test_x.c -> $(B)/tests/<room>/test_x
UNIT := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/*/test_*.c))
define unit_rule
$(B)/tests/$(1)/%: $(B)/obj/tests/unit/$(1)/%.c.o $$(USES_$(1))
	@mkdir -p $$(@D)
	@echo "  LD   $$@"
	@$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LDLIBS) -lcmocka
endef
$(foreach r,ingest state learn model daemon recctl,$(eval $(call unit_rule,$(r))))
unit: $(UNIT)

# benchmarks: tests/bench/bench_x.c -> $(B)/bench/bench_x, linked with everything
BENCH := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/bench_*.c))
$(B)/bench/%: $(B)/obj/tests/bench/%.c.o $(USES_recctl)
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

clean:
	rm -rf $(B)
.PHONY: all unit clean
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
