# build.mk: the CUDA backend, build/minisgl_cuda.so. Called by `make cuda` from the repository's root, with BUILD_ID.
#   CUDA_ARCHS="80 90a 100"   GPUs to build for (default: all that this compiler knows of these); the last also as PTX, for later ones
B ?= build/cuda
NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA := $(patsubst %/bin/,%,$(dir $(realpath $(NVCC))))
VERSION := $(shell $(NVCC) --version | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\).*/\1 \2/p' | awk '{ print $$1 * 100 + $$2 }')
CUDA_ARCHS ?= 80 90a $(shell test $(VERSION) -ge 1208 && echo 100)
LAST := $(lastword $(CUDA_ARCHS))
CODE := $(foreach a,$(CUDA_ARCHS),-gencode=arch=compute_$(a),code=sm_$(a)) -gencode=arch=compute_$(LAST),code=compute_$(LAST)
WARN := -Wall -Wextra -Werror -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wshadow -Wvla
INC := -Isrc -isystem $(CUDA)/include
ID := -DMINISGL_BUILD_ID='"$(BUILD_ID)"'
# _Noreturn is C's; 550: outputs of an instruction that nobody needs.
NVFLAGS := -std=c++17 -O3 $(CODE) $(INC) '-D_Noreturn=__attribute__((noreturn))' -Xcompiler -Wall,-Wextra,-Werror,-fPIC,-fvisibility=hidden,-fno-threadsafe-statics,-fno-exceptions \
	-Werror all-warnings -diag-suppress 550 -MMD -MP
CFLAGS ?= -O2 -g
C := $(wildcard src/dev/cuda/*.c) src/base/err.c src/base/mem.c src/flow/batch.c src/dev/lintab.c
OBJ := $(patsubst src/%.cu,$(B)/%.cu.o,$(wildcard src/dev/cuda/*.cu)) $(patsubst src/%.c,$(B)/%.o,$(C))
LIBS := $(firstword $(wildcard $(CUDA)/lib64 $(CUDA)/lib $(CUDA)/targets/x86_64-linux/lib))

OUT ?= build/minisgl_cuda.so
$(OUT): $(OBJ)
	$(CC) -shared $^ -o $@ -L$(LIBS) -Wl,-Bstatic -lcudart_static -Wl,-Bdynamic -lcublasLt -ldl -lrt -lpthread -Wl,-z,defs \
		-Wl,--exclude-libs,ALL -Wl,-rpath,'$$ORIGIN:/usr/local/cuda/lib64:$(LIBS)'

$(B)/%.cu.o: src/%.cu src/dev/cuda/build.mk
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) -c $< -o $@

$(B)/%.o: src/%.c src/dev/cuda/build.mk
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(INC) $(ID) -fPIC -fvisibility=hidden -pthread $(WARN) $(CFLAGS) -MMD -MP -c $< -o $@

# The table of products is part of the object.
$(B)/dev/cuda/table.o: src/dev/cuda/products.txt

-include $(OBJ:.o=.d)
