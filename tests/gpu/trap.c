/* trap.c: to be preloaded into the program (LD_PRELOAD) by tests/gpu: when the file that MINISGL_TRAP names appears, a thread launches a kernel
 * that ends in a trap, in the context that the program computes in. From then on every CUDA call of the process fails, as after a real error of a
 * kernel or of the GPU. Uses the driver's library, which it finds at run time; needs no toolkit. Says on stderr what it did. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char code[] = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry broken() {\n    trap;\n    ret;\n}\n";

static int spring(void) {
    void *lib = dlopen("libcuda.so.1", RTLD_NOW), *context, *module, *kernel;
    if (!lib) return -1;
    int (*retain)(void **, int), (*set)(void *), (*load)(void **, const void *), (*find)(void **, void *, const char *), (*wait)(void);
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
    *(void **)&retain = dlsym(lib, "cuDevicePrimaryCtxRetain");
    *(void **)&set = dlsym(lib, "cuCtxSetCurrent");
    *(void **)&load = dlsym(lib, "cuModuleLoadData");
    *(void **)&find = dlsym(lib, "cuModuleGetFunction");
    *(void **)&launch = dlsym(lib, "cuLaunchKernel");
    *(void **)&wait = dlsym(lib, "cuCtxSynchronize");
    int rc = retain(&context, 0);
    if (!rc) rc = set(context);
    if (!rc) rc = load(&module, code);
    if (!rc) rc = find(&kernel, module, "broken");
    if (!rc) rc = launch(kernel, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
    if (rc) return rc;
    fprintf(stderr, "trap: the kernel ended with %d\n", wait());
    return 0;
}

static void *wait_for_file(void *name) {
    while (access(name, F_OK)) usleep(2000);
    int rc = spring();
    if (rc) fprintf(stderr, "trap: the kernel could not be launched: %d\n", rc);
    return NULL;
}

__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    char *name = getenv("MINISGL_TRAP");
    if (name && !pthread_create(&thread, NULL, wait_for_file, name)) pthread_detach(thread);
}
