# recd: see README.md. `make` builds build/recd and build/recctl; `make help` lists the rest.
#
# One static library per room (ingest, state, learn, model, daemon); a unit test links its own room and those the room may use, so that the
# include arrows of docs/ARCHITECTURE.md hold at link time too.
#
# Variables: BUILD (folder, default build), SAN (address,undefined or thread), CC, CXX, OPT, DESTDIR, PREFIX, V=1 (show the commands), CUDA (yes or no; default:
# yes where nvcc is found, and not with sanitizers), NVCC, CUDA_ARCH (architectures to compile for: majors, all, or "80 90").

VERSION := 0.1.0
comma   := ,
B       := $(or $(BUILD),build$(if $(SAN),-$(subst $(comma),-,$(SAN))))
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
OPT  ?= $(if $(SAN),-O1 -g1,-O2 -g)
WARN := -Wall -Wextra -Wshadow -Wconversion -Werror
SANF := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
Q    := $(if $(V),,@)
SH   := bash

# ---- what is there --------------------------------------------------------------------------------------------------------------------
# PKGS must be there; the rest is found or not, and said in one line.
PKGS       := simdjson libconfig libmicrohttpd libcurl jansson zlib libsystemd rdkafka libzstd
OPTIONAL   := libisal jemalloc
HAVE       := $(foreach p,$(PKGS) $(OPTIONAL),$(if $(shell pkg-config --exists $(p) 2>/dev/null && echo yes),$(p)))
MISSING    := $(filter-out $(HAVE),$(PKGS))
version_of  = $(if $(filter $(1),$(HAVE)),$(shell pkg-config --modversion $(1)),none)
NVCC       := $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
cuda        = $(or $(if $(NVCC),$(shell $(NVCC) --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')),none)
CUDA       ?= $(if $(NVCC),$(if $(SAN),no,yes),no)
ifeq ($(CUDA),yes)
ifeq ($(NVCC),)
$(error CUDA=yes, and no nvcc was found: name it by NVCC=/path/to/nvcc)
endif
endif
USED       := $(filter-out $(MISSING),$(PKGS)) $(filter libisal,$(HAVE))
PKG_CFLAGS := $(shell pkg-config --cflags $(USED) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(USED) 2>/dev/null)

QUIET_GOALS := help clean uninstall
ifneq ($(filter-out $(QUIET_GOALS),$(or $(MAKECMDGOALS),all)),)
ifneq ($(MISSING),)
$(error missing: $(MISSING). Run scripts/install-deps build)
endif
ifeq ($(MAKELEVEL),0)
$(info recd $(VERSION): librdkafka $(call version_of,rdkafka), CUDA toolkit $(cuda)$(if $(filter no,$(CUDA)), (not used)), systemd $(call version_of,libsystemd), isal $(call version_of,libisal), jemalloc $(call version_of,jemalloc), zstd $(call version_of,libzstd))
endif
endif

CPPFLAGS += -I. -D_GNU_SOURCE -DRECD_VERSION='"$(VERSION)"' $(if $(filter libisal,$(HAVE)),-DHAVE_ISAL) -MMD -MP $(PKG_CFLAGS)
CFLAGS   += -std=c17 $(OPT) $(WARN) $(SANF) -ffp-contract=off -pthread
CXXFLAGS += -std=c++17 $(OPT) $(WARN) $(SANF) -pthread
LDFLAGS  += $(SANF) -pthread
LDLIBS   += $(PKG_LIBS) -lstdc++ -lm

# ---- rooms ----------------------------------------------------------------------------------------------------------------------------
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
LIB_gpu    := $(B)/lib/libgpu.a
LIB_recctl := $(B)/lib/librecctl.a
# what a room links: itself first, then what it may use
USES_ingest := $(LIB_ingest)
USES_state  := $(LIB_state) $(LIB_ingest)
USES_learn  := $(LIB_learn) $(USES_state)
USES_model  := $(LIB_model) $(USES_learn)
USES_gpu    := $(if $(filter yes,$(CUDA)),$(LIB_gpu))
USES_daemon := $(LIB_daemon) $(USES_gpu) $(USES_model)
USES_recctl := $(LIB_recctl) $(USES_daemon)

all: $(B)/recd $(B)/recctl

# A stamp changes when its text does: objects are rebuilt when the flags change, a library when its list of objects does.
define stamp
$(1): FORCE
	@mkdir -p $$(@D)
	@printf '%s\n' '$$(subst ','\'',$(2))' | cmp -s - $$@ || printf '%s\n' '$$(subst ','\'',$(2))' > $$@
endef
$(eval $(call stamp,$(B)/stamp/flags,$$(CC) $$(CXX) $$(CPPFLAGS) $$(CFLAGS) $$(CXXFLAGS) $$(LDFLAGS)))
define library
$$(eval $$(call stamp,$(B)/stamp/$(1),$(2)))
$$(LIB_$(1)): $(2) $(B)/stamp/$(1)
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(Q)ar rcs $$@ $(2)
endef
$(foreach r,ingest state learn model daemon recctl,$(eval $(call library,$(r),$($(shell echo $(r) | tr a-z A-Z)_O))))

$(B)/obj/%.c.o: %.c $(B)/stamp/flags
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@
$(B)/obj/%.cpp.o: %.cpp $(B)/stamp/flags
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c $< -o $@

define link
	@mkdir -p $(@D)
	@echo "  LD   $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(ALLOCATOR) $(LDLIBS)
endef
# The two programs allocate through jemalloc where it is found: librdkafka allocates every record in one thread and it is freed in another, which is dear with the
# C library's allocator (docs/BENCHMARKS.md). Tests keep that one; sanitizers bring their own. The stamp: they are linked again when a library comes or goes.
JEMALLOC := $(if $(SAN),,$(if $(filter jemalloc,$(HAVE)),$(shell pkg-config --libs jemalloc)))
LINKED   := $(JEMALLOC) $(LDLIBS)
$(eval $(call stamp,$(B)/stamp/programs,$$(LINKED)))
$(B)/recd $(B)/recctl: ALLOCATOR := $(JEMALLOC)
$(B)/recd $(B)/recctl: $(B)/stamp/programs
$(B)/recd: $(B)/obj/daemon/recd.c.o $(USES_daemon)
	$(link)
$(B)/recctl: $(B)/obj/daemon/recctl/recctl.c.o $(USES_recctl)
	$(link)

# ---- CUDA -----------------------------------------------------------------------------------------------------------------------------
# gpu/*.cu by nvcc, with the runtime linked in, so that one program starts everywhere. Code for compute capability 8.0 runs on all 8.x, and so on: CUDA_ARCH=majors, the
# default, compiles for the first of each major version from 8.0 on that this nvcc knows, all for every one. (nvcc 13.0 knows five and eleven; its share of a build
# takes 2.4 times as long for five as for two.) PTX of the first and of the last is for all others: the driver compiles it, at the start. Contraction is off: results
# have the CPU's bits.
ifeq ($(CUDA),yes)
CUDA_ARCH    ?= majors
CUDA_KNOWN   := $(shell $(NVCC) --list-gpu-code | sed -n 's/^sm_\([0-9]*\)$$/\1/p' | awk '$$1 >= 80' | sort -n)
CUDA_MAJORS  := $(shell printf '%s\n' $(CUDA_KNOWN) | awk '!seen[int($$1 / 10)]++')
CUDA_ARCHS   := $(if $(filter all,$(CUDA_ARCH)),$(CUDA_KNOWN),$(if $(filter majors,$(CUDA_ARCH)),$(CUDA_MAJORS),$(CUDA_ARCH)))
CUDA_LIB     := $(firstword $(wildcard $(addsuffix /libcudart_static.a,$(shell $(NVCC) --dryrun -c -x cu /dev/null -o /dev/null 2>&1 | \
	sed -n 's/^\#\$$ LIBRARIES=//p' | tr -d '"' | sed 's/-L//g'))))
NVCC_FLAGS   := -std=c++17 -O3 -fmad=false --Werror all-warnings -Xcompiler -Wall,-Wextra,-Wshadow,-Wconversion -I. -D_GNU_SOURCE -MMD -MP
NVCC_CODE    := $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) $(foreach a,$(sort $(firstword $(CUDA_ARCHS)) $(lastword $(CUDA_ARCHS))),-gencode arch=compute_$(a),code=compute_$(a))
endif
GPU_O := $(patsubst %,$(B)/obj/%.o,$(wildcard gpu/*.cu))
$(eval $(call stamp,$(B)/stamp/cuda,$$(CUDA) $$(NVCC) $$(NVCC_FLAGS) $$(NVCC_CODE)))
$(eval $(call stamp,$(B)/stamp/gpu,$$(GPU_O)))
$(B)/obj/gpu/%.cu.o: gpu/%.cu $(B)/stamp/cuda
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	$(Q)$(NVCC) $(NVCC_FLAGS) $(NVCC_CODE) -c $< -o $@
$(LIB_gpu): $(GPU_O) $(B)/stamp/gpu
	@mkdir -p $(@D)
	@rm -f $@
	$(Q)ar rcs $@ $(GPU_O)
$(B)/obj/daemon/backends.c.o: $(B)/stamp/cuda
ifeq ($(CUDA),yes)
$(B)/obj/daemon/backends.c.o: CPPFLAGS += -DRECD_HAVE_CUDA
LDLIBS += $(CUDA_LIB) -ldl -lrt
endif

# Registers, spills and occupancy of every kernel; fails when a hot one spills.
ptxas:
	@$(if $(NVCC),,echo "SKIP ptxas: nvcc was not found"; exit 0;) scripts/ptxas-report --nvcc "$(NVCC)" --arch 80,90

# The tests of gpu/ and its benchmark on a real GPU. Without one they say SKIP and why. compute-sanitizer, on the PATH or beside nvcc, looks for wrong accesses, wrong
# barriers and reads of memory that nobody has set in all of them, and for races in shared memory in those whose kernels use it.
GPU_REAL_TESTS := $(patsubst tests/unit/gpu/%.cu,$(B)/gpu/%,$(wildcard tests/unit/gpu/test_*.cu)) $(patsubst tests/unit/gpu/%.c,$(B)/gpu/%,$(wildcard tests/unit/gpu/test_*.c))
GPU_REAL_BENCH := $(patsubst tests/bench/gpu/%.c,$(B)/gpu/%,$(wildcard tests/bench/gpu/bench_*.c)) $(patsubst tests/bench/gpu/%.cu,$(B)/gpu/%,$(wildcard tests/bench/gpu/bench_*.cu))
COMPUTE_SANITIZER := $(firstword $(shell command -v compute-sanitizer 2>/dev/null) $(wildcard $(if $(NVCC),$(dir $(realpath $(shell command -v $(NVCC) 2>/dev/null)))compute-sanitizer)))
GPU_SHARED_TESTS  := $(filter %_personalize %_topk,$(GPU_REAL_TESTS))
# $(call sanitize,tool,tests)
sanitize = for t in $(sort $(2)); do echo "  $(1) $$t"; $(COMPUTE_SANITIZER) --tool $(1) --error-exitcode 9 $$t > $(B)/logs/sanitizer.log 2>&1 || { cat $(B)/logs/sanitizer.log; exit 1; }; done
$(B)/obj/real/%.cu.o: %.cu $(B)/stamp/cuda
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	$(Q)$(NVCC) $(NVCC_FLAGS) $(NVCC_CODE) -c $< -o $@
$(GPU_REAL_TESTS): LDLIBS += -lcmocka
$(B)/gpu/test_%: $(B)/obj/real/tests/unit/gpu/test_%.cu.o $(B)/obj/tests/gpu/no_emulation.c.o $(LIB_gpu) $(USES_learn)
	$(link)
$(B)/gpu/test_%: $(B)/obj/tests/unit/gpu/test_%.c.o $(B)/obj/tests/gpu/no_emulation.c.o $(LIB_gpu) $(USES_learn)
	$(link)
$(B)/gpu/bench_%: $(B)/obj/tests/bench/gpu/bench_%.c.o $(LIB_gpu) $(USES_learn)
	$(link)
$(B)/gpu/bench_%: $(B)/obj/real/tests/bench/gpu/bench_%.cu.o $(LIB_gpu) $(USES_learn)
	$(link)
$(B)/gpu/probe: $(B)/obj/tests/gpu/probe.c.o $(LIB_gpu) $(USES_learn)
	$(link)
# $(call on_gpu,goal,commands)
on_gpu = if why=$$($(B)/gpu/probe); then $(2); else echo "SKIP $(1): $$why"; fi
no_cuda = @echo "SKIP $(1): this build has no CUDA backend (CUDA=$(CUDA), nvcc: $(or $(NVCC),not found))"
ifeq ($(CUDA),yes)
check-gpu: $(B)/gpu/probe $(GPU_REAL_TESTS)
	@$(call on_gpu,check-gpu,scripts/run-tests --jobs 1 --logs $(B)/logs --root $(B) $(sort $(GPU_REAL_TESTS)) && \
		$(if $(COMPUTE_SANITIZER),{ $(foreach tool,memcheck synccheck initcheck,$(call sanitize,$(tool),$(GPU_REAL_TESTS)); )$(call sanitize,racecheck,$(GPU_SHARED_TESTS)); },\
		echo "compute-sanitizer is neither on the PATH nor beside nvcc: the tests ran without it"))
bench-gpu: $(B)/gpu/probe $(GPU_REAL_BENCH)
	@$(call on_gpu,bench-gpu,for b in $(sort $(GPU_REAL_BENCH)); do echo "== $${b##*/}"; $$b || exit 1; done)
else
check-gpu bench-gpu:
	$(call no_cuda,$@)
endif

# ---- CUDA on a CPU --------------------------------------------------------------------------------------------------------------------
# tests/cuda_emu takes the place of the CUDA runtime: the same .cu files as C++, every lane a fiber. The emulation tells the sanitizers of its fibers itself and is
# not compiled with them; the .cu files are. A use after return cannot be looked for on stacks that switch this often.
EMU_O     := $(call objs,tests/cuda_emu/emu_*.cpp)
GPU_EMU_O := $(patsubst %,$(B)/obj/emu/%.o,$(wildcard gpu/*.cu))
LIB_emu     := $(B)/lib/libcuda_emu.a
LIB_gpu_emu := $(B)/lib/libgpu_emu.a
EMU_SAN   := $(if $(findstring address,$(SAN)),-DEMU_ASAN) $(if $(findstring thread,$(SAN)),-DEMU_TSAN)
EMU_CXXFLAGS := -std=c++17 -O2 -g $(WARN) -pthread $(EMU_SAN)
EMU_CUFLAGS  := -x c++ -Itests/cuda_emu -ffp-contract=off -Wno-unknown-pragmas $(if $(findstring undefined,$(SAN)),-DEMU_UBSAN) $(if $(findstring address,$(SAN)),$(if $(findstring clang,$(CXX)),\
	-fsanitize-address-use-after-return=never,--param asan-use-after-return=0))
$(eval $(call stamp,$(B)/stamp/emu,$$(EMU_O)))
$(eval $(call stamp,$(B)/stamp/gpu_emu,$$(GPU_EMU_O)))
$(B)/obj/tests/cuda_emu/emu_%.cpp.o: tests/cuda_emu/emu_%.cpp $(B)/stamp/flags
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	$(Q)$(CXX) $(CPPFLAGS) $(EMU_CXXFLAGS) -c $< -o $@
$(B)/obj/emu/%.cu.o: %.cu $(B)/stamp/flags
	@mkdir -p $(@D)
	@echo "  EMU  $<"
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) $(EMU_CUFLAGS) -c $< -o $@
$(LIB_emu): $(EMU_O) $(B)/stamp/emu
	@mkdir -p $(@D)
	@rm -f $@
	$(Q)ar rcs $@ $(EMU_O)
$(LIB_gpu_emu): $(GPU_EMU_O) $(B)/stamp/gpu_emu
	@mkdir -p $(@D)
	@rm -f $@
	$(Q)ar rcs $@ $(GPU_EMU_O)
# recd and recctl on the emulation, for end-to-end tests: $(B)/emu/recd and $(B)/emu/recctl. They differ from the real ones in backends.c and the library alone.
EMU_BACKENDS := $(B)/obj/emu/daemon/backends.c.o
EMU_USES     := $(LIB_daemon) $(LIB_gpu_emu) $(USES_model) $(LIB_emu)
EMU_PROGRAMS := $(B)/emu/recd $(B)/emu/recctl $(B)/emu/bench_device
$(EMU_BACKENDS): daemon/backends.c $(B)/stamp/flags
	@mkdir -p $(@D)
	@echo "  CC   $< (emulated CUDA)"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -DRECD_HAVE_CUDA -c $< -o $@
$(B)/emu/recd: $(B)/obj/daemon/recd.c.o $(EMU_BACKENDS) $(EMU_USES)
	$(link)
$(B)/emu/recctl: $(B)/obj/daemon/recctl/recctl.c.o $(EMU_BACKENDS) $(LIB_recctl) $(EMU_USES)
	$(link)

# ---- tests ----------------------------------------------------------------------------------------------------------------------------
# tests/unit/<room>/test_x.c -> $(B)/tests/<room>/test_x. Property tests and fuzz targets may use every room.
UNIT     := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/*/test_*.c))
PROPERTY := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/property/test_*.c))
FUZZ     := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/fuzz/fuzz_*.c tests/fuzz/test_*.c))
define unit_rule
$(B)/tests/$(1)/%: LDLIBS += -lcmocka
$(B)/tests/$(1)/%: $(B)/obj/tests/unit/$(1)/%.c.o $$(USES_$(1))
	$$(link)
endef
$(foreach r,ingest state learn model daemon recctl,$(eval $(call unit_rule,$(r))))
$(PROPERTY) $(FUZZ): LDLIBS += -lcmocka
$(PROPERTY) $(FUZZ): $(B)/tests/%: $(B)/obj/tests/%.c.o $(USES_recctl)
	$(link)
# The emulation's own tests, and those of gpu/ on it: C beside backend.h, or CUDA.
EMU_TESTS := $(patsubst tests/cuda_emu/%.cu,$(B)/tests/cuda_emu/%,$(wildcard tests/cuda_emu/test_*.cu))
GPU_TESTS := $(patsubst tests/unit/gpu/%.cu,$(B)/tests/gpu/%,$(wildcard tests/unit/gpu/test_*.cu)) $(filter $(B)/tests/gpu/%,$(UNIT))
$(EMU_TESTS) $(GPU_TESTS): LDLIBS += -lcmocka
$(B)/tests/cuda_emu/%: $(B)/obj/emu/tests/cuda_emu/%.cu.o $(LIB_emu)
	$(link)
$(B)/tests/gpu/%: $(B)/obj/emu/tests/unit/gpu/%.cu.o $(LIB_gpu_emu) $(USES_learn) $(LIB_emu)
	$(link)
$(B)/tests/gpu/%: $(B)/obj/tests/unit/gpu/%.c.o $(LIB_gpu_emu) $(USES_learn) $(LIB_emu)
	$(link)
# The benchmarks of gpu/ on the emulation: bench_quality for rankings, bench_device (tiny) to see that it works.
$(B)/emu/bench_%: $(B)/obj/tests/bench/gpu/bench_%.c.o $(LIB_gpu_emu) $(USES_learn) $(LIB_emu)
	$(link)
$(B)/emu/bench_%: $(B)/obj/emu/tests/bench/gpu/bench_%.cu.o $(LIB_gpu_emu) $(USES_learn) $(LIB_emu)
	$(link)
UNIT += $(EMU_TESTS) $(filter-out $(UNIT),$(GPU_TESTS))
unit: $(UNIT)

# The tests' own Kafka client; it uses nothing of ours, but for what makes librdkafka run under ThreadSanitizer.
KAFKA_TOOL := $(B)/tests/kafka_tool
$(KAFKA_TOOL): $(call objs,tests/kafka/*.c) $(if $(findstring thread,$(SAN)),$(B)/obj/ingest/kafka_client_tsan.c.o)
	$(link)

# Python tests get the programs' paths. Under a sanitizer only those marked `core` run: the others add time and no new code.
PYTESTS   := $(if $(SAN),,tests/packaging)
RUN_TESTS := RECD=$(abspath $(B)/recd) RECCTL=$(abspath $(B)/recctl) EMU_RECD=$(abspath $(B)/emu/recd) EMU_RECCTL=$(abspath $(B)/emu/recctl) BUILD=$(B) SAN=$(SAN) \
	scripts/run-tests --logs $(B)/logs --root $(B)/tests $(if $(SAN),--san $(SAN) --select core --timeout 1200)
# Those of a Kafka broker wait more than they work: they run beside the others.
KAFKA_E2E := $(wildcard tests/e2e/test_kafka*.py tests/e2e/test_replay.py)
OTHER_E2E := $(filter-out $(KAFKA_E2E),$(wildcard tests/e2e/test_*.py))
has_pytests = $(foreach d,$(PYTESTS),--pytest $(d)) --pytest "tests/e2e-kafka=$(KAFKA_E2E)" --pytest "tests/e2e=$(OTHER_E2E)"
check: all $(EMU_PROGRAMS) $(UNIT) $(PROPERTY) $(FUZZ) $(KAFKA_TOOL)
	@$(RUN_TESTS) $(has_pytests) $(PROPERTY) $(FUZZ) $(sort $(UNIT))
check-unit: $(UNIT)
	@$(RUN_TESTS) $(sort $(UNIT))
# The property tests and fuzz targets multiply their rounds by RECD_TEST_SCALE (default 1); the device is lost at as many times more calls.
SCALE ?= 20
torture: all $(EMU_PROGRAMS) $(PROPERTY) $(FUZZ)
	@RECD_TEST_SCALE=$(SCALE) $(RUN_TESTS) --timeout 7200 --pytest tests/e2e/test_device_loss.py $(PROPERTY) $(FUZZ)
	@scripts/gpu-mutants --build $(B)/mutants
	@$(MAKE) --no-print-directory storm STORM="1000000 100 3"
# The kill storm on a real broker: lines, kills of recd, kills of the broker, and the seed (without one it is drawn; it is printed).
STORM ?= 1000000 20 3
storm: all $(KAFKA_TOOL)
	@RECD_TEST_STORM="$(STORM)" $(RUN_TESTS) --timeout 3600 --pytest tests/e2e/test_kafka_storm.py; code=$$?; \
		grep -h '^storm: ' $(B)/logs/tests-e2e-test_kafka_storm.py.log; exit $$code

# benchmarks: tests/bench/bench_x.c -> $(B)/bench/bench_x, linked with everything. They print figures and assert nothing.
BENCH := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/bench_*.c))
$(B)/bench/%: $(B)/obj/tests/bench/%.c.o $(USES_recctl)
	$(link)
bench: all $(BENCH)
	@for b in $(sort $(BENCH)); do echo "== $${b##*/}"; RECD=$(abspath $(B)/recd) RECCTL=$(abspath $(B)/recctl) $$b || exit 1; done
	@echo "== bench_answer"; RECD=$(abspath $(B)/recd) RECCTL=$(abspath $(B)/recctl) /usr/bin/python3 -B tests/bench/bench_answer.py
# recd and recctl on a real Kafka beside bare clients, in one run of about four minutes. BENCH_KAFKA: consume, produce, answer (default: all), --rounds N, --impressions N.
KAFKA_BENCH := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/kafka/*.c))
bench-kafka: all $(KAFKA_BENCH) $(B)/bench/bench_replay
	@RECD=$(abspath $(B)/recd) RECCTL=$(abspath $(B)/recctl) BENCH=$(abspath $(B)/bench) /usr/bin/python3 -B tests/bench/kafka/bench_kafka.py $(BENCH_KAFKA)
# train and the stream against the truth of synthetic logs; plain flags and the presets on logs of three seeds; then the stream beside training from files, part by part.
# BENCH_STREAM: other flags of scripts/bench-stream, such as "skips --seeds 42,7,3", or none. PAIRS="train.tsv test.tsv": the presets on those files, too.
BENCH_STREAM ?= curve
PAIRS_SEEDS ?= 1,2,3
BENCH_PRESETS := RECCTL=$(abspath $(B)/recctl) /usr/bin/python3 -B tests/bench/bench_presets.py
bench-quality: all
	@RECD=$(abspath $(B)/recd) RECCTL=$(abspath $(B)/recctl) scripts/bench-quality
	@$(BENCH_PRESETS) --logs 2000,5000,2000000 --seeds 42,43,44
	@$(if $(PAIRS),$(BENCH_PRESETS) $(word 1,$(PAIRS)) --test $(or $(word 2,$(PAIRS)),$(error PAIRS: a training file and a test file)) --seeds $(PAIRS_SEEDS))
	@$(if $(filter-out none,$(BENCH_STREAM)),RECD=$(abspath $(B)/recd) RECCTL=$(abspath $(B)/recctl) scripts/bench-stream $(BENCH_STREAM))

# ---- lint -----------------------------------------------------------------------------------------------------------------------------
# Four checks, each of which must be silent. A clean clang-tidy result is kept until the file or any header changes.
SOURCES   := $(wildcard $(foreach d,ingest trainer/state trainer/learn trainer/model gpu daemon daemon/recctl,$(d)/*.c $(d)/*.cpp))
HEADERS   := $(wildcard ingest/*.h trainer/*/*.h gpu/*.h daemon/*.h daemon/recctl/*.h)
TIDY_OK   := $(patsubst %,$(B)/lint/%.ok,$(SOURCES))
# Left to better judges: uninitialised values and failed allocations to clang-analyzer, leaks to AddressSanitizer, json_fields.cpp (which makes no sense
# without simdjson's headers) to clang-tidy.
CPPCHECK_OFF := uninitvar legacyUninitvar nullPointerOutOfMemory memleak normalCheckLevelMaxBranches missingIncludeSystem toomanyconfigs
CPPCHECK  := cppcheck --quiet --enable=warning,performance --std=c11 --inline-suppr --error-exitcode=1 -j 2 $(addprefix --suppress=,$(CPPCHECK_OFF)) \
	-I. -D_GNU_SOURCE '-DRECD_VERSION="$(VERSION)"' '-DJSON_INTEGER_FORMAT="lld"' $(if $(filter libisal,$(HAVE)),-DHAVE_ISAL)
lint: lint-includes lint-scripts lint-cppcheck lint-tidy
	@echo "lint: clean"
lint-includes:
	@echo "  LINT include arrows"
	$(Q)scripts/check-includes --self-test && scripts/check-includes
lint-scripts:
	@echo "  LINT scripts"
	$(Q)for s in scripts/* .ci/run; do case $$(head -n 1 $$s) in *bash*) $(SH) -n $$s || exit 1;; esac; done
lint-cppcheck:
	@echo "  LINT cppcheck"
	$(Q)$(CPPCHECK) $(filter %.c,$(SOURCES))
lint-tidy: $(TIDY_OK)
TIDY_FLAGS = $(filter-out -MMD -MP,$(CPPFLAGS)) $(if $(filter %.cpp,$<),-std=c++17,-std=c17) $(filter-out -Werror,$(WARN)) -pthread
$(B)/lint/%.ok: % $(HEADERS) .clang-tidy
	@mkdir -p $(@D)
	@echo "  TIDY $<"
	$(Q)clang-tidy --quiet $< -- $(TIDY_FLAGS) > $@.log 2>&1 || { cat $@.log; exit 1; }
	@touch $@

# ---- documents, installation ----------------------------------------------------------------------------------------------------------
docs: all
	@mkdir -p docs
	$(Q)$(B)/recd --describe-config > $(B)/CONFIGURATION.md && mv $(B)/CONFIGURATION.md docs/CONFIGURATION.md
	$(Q)scripts/help-to-man $(B)/recctl > $(B)/recctl.1 && mv $(B)/recctl.1 packaging/recctl.1
	@echo "docs/CONFIGURATION.md and packaging/recctl.1 written"

PREFIX     ?= /usr
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
D          := $(DESTDIR)
EXAMPLES   := $(PREFIX)/share/doc/recd
install: all
	install -d $(D)$(PREFIX)/bin $(D)$(PREFIX)/share/man/man1 $(D)$(PREFIX)/share/man/man8 $(D)$(SYSCONFDIR)/recd $(D)$(EXAMPLES)
	install -d $(D)$(UNITDIR) $(D)$(PREFIX)/lib/sysusers.d $(D)$(PREFIX)/lib/tmpfiles.d
	install -m 755 $(B)/recd $(B)/recctl $(D)$(PREFIX)/bin/
	[ -e $(D)$(SYSCONFDIR)/recd/recd.conf ] || install -m 644 conf/recd.conf $(D)$(SYSCONFDIR)/recd/recd.conf
	install -m 644 conf/recd.conf $(D)$(EXAMPLES)/recd.conf.default
	sed 's#^\(Exec[A-Za-z]*=\)/usr/bin/recd#\1$(PREFIX)/bin/recd#' packaging/recd.service > $(D)$(UNITDIR)/recd.service
	chmod 644 $(D)$(UNITDIR)/recd.service
	install -m 644 packaging/recd.service.d/gpu.conf $(D)$(EXAMPLES)/gpu.conf
	install -m 644 packaging/recd.service.d/kafka.conf $(D)$(EXAMPLES)/kafka.conf
	install -m 644 packaging/sysusers.d/recd.conf $(D)$(PREFIX)/lib/sysusers.d/recd.conf
	install -m 644 packaging/tmpfiles.d/recd.conf $(D)$(PREFIX)/lib/tmpfiles.d/recd.conf
	install -m 644 packaging/recctl.1 $(D)$(PREFIX)/share/man/man1/recctl.1
	install -m 644 packaging/recd.8 $(D)$(PREFIX)/share/man/man8/recd.8
# Leaves the configuration, the data and the user recd where they are.
uninstall:
	rm -f $(D)$(PREFIX)/bin/recd $(D)$(PREFIX)/bin/recctl $(D)$(UNITDIR)/recd.service
	rm -f $(D)$(PREFIX)/lib/sysusers.d/recd.conf $(D)$(PREFIX)/lib/tmpfiles.d/recd.conf
	rm -f $(D)$(PREFIX)/share/man/man1/recctl.1 $(D)$(PREFIX)/share/man/man8/recd.8
	rm -rf $(D)$(EXAMPLES)

help:
	@echo "make               build/recd and build/recctl"
	@echo "make check         unit, property, fuzz and end-to-end tests; the last line counts them"
	@echo "make check SAN=address,undefined      the same under AddressSanitizer and UBSan"
	@echo "make check SAN=thread                 the same under ThreadSanitizer"
	@echo "make unit          builds the unit tests; make check-unit runs them"
	@echo "make lint          include arrows, clang-tidy, cppcheck"
	@echo "make bench         prints figures, asserts nothing"
	@echo "make bench-kafka   recd and recctl on a real Kafka beside bare clients"
	@echo "make bench-quality rankings of train, of its presets and of the stream on synthetic logs; PAIRS='train.tsv test.tsv': the presets on those, too"
	@echo "make torture       property tests and fuzz targets with SCALE=20 times the rounds; the device lost at each call; kernels without each of their barriers, atomics, bounds tests; 100 kills"
	@echo "make storm         the kill storm on a real Kafka: STORM='1000000 20 3' lines, kills of recd, kills of the broker, and a seed"
	@echo "make ptxas         registers, spills and occupancy of every CUDA kernel; fails when a hot one spills"
	@echo "make check-gpu     the tests of the CUDA backend on a real GPU, with compute-sanitizer where it is installed"
	@echo "make bench-gpu     the CUDA backend's figures on a real GPU"
	@echo "make docs          writes docs/CONFIGURATION.md and packaging/recctl.1 from the programs"
	@echo "make install       DESTDIR= PREFIX=/usr; make uninstall takes it out again"
	@echo "make clean         removes the build folder"
	@echo "variables: BUILD=folder SAN=... CC=clang CXX=clang++ OPT='-O2 -g' V=1"
	@echo "           CUDA=no (without the CUDA backend) CUDA_ARCH=majors (or all, or '80 90'), NVCC=/path/to/nvcc"

clean:
	rm -rf $(B)

FORCE:
.PHONY: ptxas check-gpu bench-gpu all unit check check-unit bench bench-kafka bench-quality torture storm lint lint-includes lint-scripts lint-cppcheck lint-tidy docs install uninstall help clean FORCE
.SECONDARY:
.DELETE_ON_ERROR:
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
