# build.mk: the CUDA backend, build/minisgl_cuda.so. Called by `make cuda` from the repository's root, with BUILD_ID.
#   NVCC=PATH                 the compiler (default: what `scripts/cuda-toolkit find` finds)
#   CUDA_ARCHS="90a"          GPUs to build for (default: all that this compiler knows of 80, 90a and 100, and PTX for later ones)
B ?= build/cuda
NVCC ?= $(shell scripts/cuda-toolkit find)
# The toolkit's folder; empty: a distribution's package, whose headers and libraries are where the compiler looks anyway.
CUDA := $(filter-out /usr,$(patsubst %/bin/,%,$(dir $(realpath $(NVCC)))))
VERSION := $(shell $(NVCC) --version | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\).*/\1 \2/p' | awk '{ print $$1 * 100 + $$2 }')
ifndef CUDA_ARCHS
CUDA_ARCHS := 80 90a $(shell test $(VERSION) -ge 1208 && echo 100)
PTX := $(patsubst %a,%,$(lastword $(CUDA_ARCHS)))
endif
CODE := $(foreach a,$(CUDA_ARCHS),-gencode=arch=compute_$(a),code=sm_$(a)) $(foreach a,$(PTX),-gencode=arch=compute_$(a),code=compute_$(a))
WARN := -Wall -Wextra -Werror -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wshadow -Wvla
INC := -Isrc $(CUDA:%=-isystem %/include)
ID := -DMINISGL_BUILD_ID='"$(BUILD_ID)"'
# _Noreturn is C's; 550: outputs of an instruction that nobody needs.
# Whether the object has Hopper's own code, which sm_90a alone takes.
SM90A := $(if $(filter 90a,$(CUDA_ARCHS)),-DMINISGL_SM90A)
NVFLAGS := -std=c++17 -O3 $(CODE) $(SM90A) $(INC) '-D_Noreturn=__attribute__((noreturn))' -Xcompiler -Wall,-Wextra,-Werror,-fPIC,-fvisibility=hidden,-fno-threadsafe-statics,-fno-exceptions \
	-Werror all-warnings -diag-suppress 550 -MMD -MP
CFLAGS ?= -O2 -g
C := $(wildcard src/dev/cuda/*.c) src/base/err.c src/base/mem.c src/flow/batch.c src/hw/nvml.c src/hw/health.c src/dev/lintab.c
OBJ := $(patsubst src/%.cu,$(B)/%.cu.o,$(wildcard src/dev/cuda/*.cu)) $(patsubst src/%.c,$(B)/%.o,$(C))
LIBS := $(firstword $(wildcard $(CUDA:%=%/lib64) $(CUDA:%=%/lib) $(CUDA:%=%/targets/x86_64-linux/lib)))
LT := $(firstword $(notdir $(wildcard $(LIBS)/libcublasLt.so $(LIBS)/libcublasLt.so.[0-9]*)) libcublasLt.so)
# Where the libraries are looked for at run time: beside this object, in the wheels of scripts/cuda-toolkit, and where they are now.
KIT := toolkit/nvidia
RPATH := $$ORIGIN:$$ORIGIN/$(KIT)/cu13/lib:$$ORIGIN/$(KIT)/nccl/lib:$$ORIGIN/$(KIT)/cudnn/lib:/usr/local/cuda/lib64$(if $(LIBS),:$(LIBS))

OUT ?= build/minisgl_cuda.so
$(OUT): $(OBJ)
	$(CC) -shared $^ -o $@ $(if $(LIBS),-L$(LIBS)) -Wl,-Bstatic -lcudart_static -Wl,-Bdynamic -l:$(LT) -lm -ldl -lrt -lpthread -Wl,-z,defs \
		-Wl,--exclude-libs,ALL -Wl,-rpath,'$(RPATH)'

# Another compiler or other GPUs: everything is made again.
$(B)/with.txt: FORCE
	@mkdir -p $(@D)
	@echo '$(realpath $(NVCC)) $(VERSION) $(CUDA_ARCHS)' | cmp -s - $@ || echo '$(realpath $(NVCC)) $(VERSION) $(CUDA_ARCHS)' >$@
.PHONY: FORCE

$(B)/%.cu.o: src/%.cu src/dev/cuda/build.mk $(B)/with.txt
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) -c $< -o $@

$(B)/%.o: src/%.c src/dev/cuda/build.mk $(B)/with.txt
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(INC) $(ID) -fPIC -fvisibility=hidden -pthread $(WARN) $(CFLAGS) -MMD -MP -c $< -o $@

# The table of products is part of the object.
$(B)/dev/cuda/table.o: src/dev/cuda/products.txt

-include $(OBJ:.o=.d)
