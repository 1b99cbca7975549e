# minisgl: one Makefile. `make help` tells the targets.
#
# Everything goes to build/ (or build/<variant> for sanitizers). Sources are found, not listed; a file's name
# may end in the instruction set it needs (x_avx2.c, x_avx512.c, x_avx512bf16.c), and only that file gets the flags.

VARIANT ?=
B := build$(if $(VARIANT),/$(VARIANT))
CC ?= gcc
PREFIX ?= /usr/local

WARN := -Wall -Wextra -Werror -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wshadow -Wvla
CFLAGS ?= -O2 -g
BASE_CFLAGS := -std=c11 -D_GNU_SOURCE -Isrc -I$(B)/gen -fno-math-errno -ffp-contract=off -pthread $(WARN)
LDLIBS := -lyajl -ljansson -lpcre2-8 -lutf8proc -levent_core -lcurl -lcrypto -ldl -lm -pthread
SAN_address := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SAN_undefined := -fsanitize=undefined -fno-sanitize-recover=undefined
SAN_thread := -fsanitize=thread
# Instrumented code makes gcc see uninitialized variables that are none.
SAN := $(SAN_$(SANITIZER)) $(if $(SANITIZER),-Wno-error)

SRC := $(filter-out src/dev/cuda/% src/comm/mpi_plugin.c,$(sort $(shell find src -name '*.c')))
# Instruction-set files are for x86-64 only; dispatch.c knows what was compiled in.
MACHINE := $(shell $(CC) -dumpmachine)
ifeq ($(filter x86_64%,$(MACHINE)),)
SRC := $(filter-out %_avx2.c %_avx512.c %_avx512bf16.c,$(SRC))
endif
# Fuzz targets read bytes from outside; none needs the kernels, which are slow to compile with coverage.
ifeq ($(VARIANT),fuzzlib)
SRC := $(filter-out src/dev/cpu/% src/engine/% src/cli/% src/loop.c src/app.c,$(SRC))
endif
OBJ := $(SRC:src/%.c=$(B)/obj/%.o)
# Program and CUDA backend must agree on these; the id is how they know.
BUILD_ID := $(shell cat src/dev/dev.h src/flow/batch.h src/flow/result.h src/flow/sampling.h src/base/err.h | sha256sum | cut -c1-12)
$(B)/obj/dev/cpu/cpu.o: ISA := -DMINISGL_BUILD_ID='"$(BUILD_ID)"'
# The same for the MPI plug-in, which is built where MPI's compiler wrapper is found.
MPI_ID := $(shell cat src/comm/mpi.h src/base/err.h | sha256sum | cut -c1-12)
$(B)/obj/comm/mpi.o: ISA := -DMINISGL_BUILD_ID='"$(MPI_ID)"'
MPICC := $(if $(filter fuzzlib,$(VARIANT)),,$(shell command -v mpicc))
LIBOBJ := $(filter-out $(B)/obj/main.o,$(OBJ))
UNIT := $(patsubst tests/unit/%.c,$(B)/unit/%,$(wildcard tests/unit/test_*.c))
FUZZ := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
REPLAY := $(FUZZ:$(B)/fuzz/%=$(B)/replay/%)
BENCH := $(patsubst bench/%.c,$(B)/bench/%,$(wildcard bench/ops/*.c bench/text/*.c bench/sched/*.c))

.PHONY: all help test unit unit-build bench fuzz replay replay-build asan tsan ubsan cuda install clean deps-check
all: $(B)/minisgl $(if $(MPICC),$(B)/minisgl_mpi.so)

help:
	@echo 'make            build/minisgl'
	@echo 'make test       build and run the unit and end-to-end tests'
	@echo 'make unit       the unit tests alone'
	@echo 'make bench      build the benchmarks into build/bench'
	@echo 'make fuzz       the fuzz targets (clang), into build/fuzz'
	@echo 'make replay     the fuzz targets on their corpora, without libFuzzer'
	@echo 'make asan tsan ubsan   the unit tests under a sanitizer'
	@echo 'make cuda       the CUDA backend (nvcc 12.4 or later, or scripts/cuda-toolkit)'
	@echo 'make install PREFIX=/usr/local'

$(B)/obj/%_avx2.o: ISA := -mavx2 -mfma -mf16c -mbmi2
$(B)/obj/%_avx512.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c -mbmi2
$(B)/obj/%_avx512bf16.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mavx2 -mfma -mf16c -mbmi2

$(B)/obj/%.o: src/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) $(SAN) $(ISA) -MMD -MP -c $< -o $@

$(B)/libminisgl.a: $(LIBOBJ)
	@rm -f $@
	ar rcs $@ $^

$(B)/minisgl: $(B)/obj/main.o $(B)/libminisgl.a
	$(CC) $(CFLAGS) $(SAN) $^ $(LDLIBS) -o $@

# The program with --fault, for tests of what happens when a rank goes wrong.
$(B)/minisgl-faults: src/opt.c $(B)/obj/main.o $(B)/libminisgl.a
	$(CC) $(BASE_CFLAGS) $(CFLAGS) $(SAN) -DMINISGL_FAULTS $^ $(LDLIBS) -o $@

$(B)/minisgl_mpi.so: src/comm/mpi_plugin.c src/comm/mpi.h src/base/err.h Makefile
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) -fPIC -shared -DMINISGL_BUILD_ID='"$(MPI_ID)"' $< \
		$(patsubst -I%,-isystem %,$(shell $(MPICC) --showme:compile)) $(shell $(MPICC) --showme:link) -o $@

$(B)/unit/%: tests/unit/%.c $(B)/libminisgl.a
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) $(SAN) -Itests/unit -MMD -MP $< $(B)/libminisgl.a $(LDLIBS) -lcmocka -o $@

$(B)/bench/%: bench/%.c $(B)/libminisgl.a
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) $(SAN) -MMD -MP $< $(B)/libminisgl.a $(LDLIBS) -o $@

bench: $(BENCH)

unit-build: $(UNIT)
unit: $(UNIT) $(if $(MPICC),$(B)/minisgl_mpi.so)
	@tests/run-unit $(UNIT)

test: all
	@./test --no-install

asan:
	@$(MAKE) --no-print-directory unit VARIANT=asan SANITIZER=address CFLAGS='-O1 -g'
ubsan:
	@$(MAKE) --no-print-directory unit VARIANT=ubsan SANITIZER=undefined CFLAGS='-O1 -g'
# The programs in which several threads meet.
THREADED := test_comm test_sched test_app_load test_serve_load test_generate test_dev_pool test_dev_touch
tsan:
	@$(MAKE) --no-print-directory unit VARIANT=tsan SANITIZER=thread CFLAGS='-O1 -g' UNIT='$(THREADED:%=build/tsan/unit/%)'

# Fuzz targets are libFuzzer programs; every source is compiled again with coverage, once for all targets.
ifneq ($(VARIANT),fuzzlib)
build/fuzzlib/libminisgl.a: FORCE
	@$(MAKE) --no-print-directory $@ VARIANT=fuzzlib CC=clang \
		CFLAGS='-O1 -g -fsanitize=fuzzer-no-link,address,undefined'
endif
$(B)/fuzz/%: tests/fuzz/%.c build/fuzzlib/libminisgl.a
	@mkdir -p $(@D)
	clang $(BASE_CFLAGS) -O1 -g -fsanitize=fuzzer,address,undefined $< build/fuzzlib/libminisgl.a $(LDLIBS) -o $@
.PHONY: FORCE
fuzz: $(FUZZ)

# The same targets with an ordinary main that feeds them their corpus; with SANITIZER=... under that sanitizer.
$(B)/replay/%: tests/fuzz/%.c tests/fuzz/replay.c $(B)/libminisgl.a
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) $(SAN) tests/fuzz/replay.c $< $(B)/libminisgl.a $(LDLIBS) -o $@
replay-build: $(REPLAY)
replay: $(REPLAY)
	@bad=0; for t in $(REPLAY); do $$t tests/fuzz/corpus/$${t##*/fuzz_} || { echo "FAILED: $$t"; bad=1; }; done; exit $$bad

cuda: all
	@if nvcc=$$(scripts/cuda-toolkit find); then \
		$(MAKE) --no-print-directory -f src/dev/cuda/build.mk BUILD_ID=$(BUILD_ID) NVCC=$$nvcc; \
	else echo 'make cuda: there is no nvcc of CUDA 12.4 or later: install the CUDA toolkit, or let scripts/cuda-toolkit take it from PyPI;' \
		'the CPU backend is complete without it'; fi

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/minisgl
	install -m 755 $(B)/minisgl $(DESTDIR)$(PREFIX)/bin/minisgl
	for so in $(wildcard build/minisgl_cuda.so build/minisgl_mpi.so); do install -d $(DESTDIR)$(PREFIX)/lib/minisgl && \
		install -m 755 $$so $(DESTDIR)$(PREFIX)/lib/minisgl/; done
	cp -r models $(DESTDIR)$(PREFIX)/share/minisgl/

clean:
	rm -rf build

-include $(OBJ:.o=.d) $(UNIT:=.d) $(BENCH:=.d)
