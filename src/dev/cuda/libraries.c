/* libraries.c: NCCL and cuDNN for `minisgl doctor`: can they be opened from here, as a run would, which files are they, and are they new enough? Asks
 * nothing of a GPU. The main thread. */
#include "dev/cuda/cudnn.h"
#include "dev/cuda/exchange.h"
#include "dev/open.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static void look(struct dev_library *l, const char *name, const char *file, const char *symbol, void **f) {
    Dl_info info;
    void *so = dlopen(file, RTLD_NOW | RTLD_LOCAL); /* stays open: it may have threads of its own */
    *l = (struct dev_library){0};
    snprintf(l->name, sizeof l->name, "%s", name);
    if (!so) snprintf(l->why, sizeof l->why, "%s", dlerror());
    *f = so ? dlsym(so, symbol) : NULL;
    if (so && !*f) snprintf(l->why, sizeof l->why, "%s has no %s", file, symbol);
    if (*f && dladdr(*f, &info) && info.dli_fname) snprintf(l->path, sizeof l->path, "%s", info.dli_fname);
}

static void look_nccl(struct dev_library *l) {
    int (*version)(int *), v = 0;
    look(l, "NCCL", "libnccl.so.2", "ncclGetVersion", (void **)&version);
    if (!version) return;
    if (!version(&v)) snprintf(l->version, sizeof l->version, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
    l->found = nccl_found(l->why, sizeof l->why);
}

static void look_cudnn(struct dev_library *l) {
    size_t (*version)(void), v;
    look(l, "cuDNN", "libcudnn.so.9", "cudnnGetVersion", (void **)&version);
    if (!version) return;
    v = version();
    snprintf(l->version, sizeof l->version, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    l->found = v >= CUDNN_OLDEST;
    if (!l->found) snprintf(l->why, sizeof l->why, "it is %s: expected cuDNN 9.10.2 or later", l->version);
}

/* size: of a struct dev_library, as the program knows it. How many. */
__attribute__((visibility("default"))) int minisgl_cuda_libraries(struct dev_library *out, size_t size);
int minisgl_cuda_libraries(struct dev_library *out, size_t size) {
    if (size != sizeof *out) return 0;
    look_nccl(&out[0]);
    look_cudnn(&out[1]);
    return DEV_LIBRARIES;
}
