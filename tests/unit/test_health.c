/* test_health.c: what is said of a GPU that goes wrong, with a made-up driver library (tests/e2e/fake_nvml.c) in place of NVIDIA's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "hw/health.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/minisgl-health-XXXXXX";
static bool made;

/* A library that is loaded answers to its soname: health.c opens this one. The counts of the fake begin anew with every loading. */
static void *fake(void) {
    char path[100];
    snprintf(path, sizeof path, "%s/libnvidia-ml.so.1", folder);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static void described(const char *settings, char *text, size_t n) {
    static const char *const names[] = {"FAKE_SLOWED", "FAKE_LOST", "FAKE_MENDED", "FAKE_ROWS", "FAKE_XIDS", "FAKE_EVENTS"};
    char copy[200], *save, *at;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unsetenv(names[i]);
    snprintf(copy, sizeof copy, "%s", settings);
    for (at = strtok_r(copy, ",", &save); at; at = strtok_r(NULL, ",", &save)) {
        char *value = strchr(at, '=');
        *value++ = 0;
        setenv(at, value, 1);
    }
    void *library = fake();
    assert_non_null(library);
    struct gpu_health *h = gpu_health_open("00000000:12:00.0");
    assert_non_null(h);
    gpu_health_describe(h, text, n);
    gpu_health_close(h);
    dlclose(library);
}

static void test_sentences(void **state) {
    (void)state;
    static const struct {
        const char *settings, *says;
    } cases[] = {
        {"", "GPU at 00000000:12:00.0: 61 degrees, 1980 MHz"},
        {"FAKE_EVENTS=0,FAKE_XIDS=79", "GPU at 00000000:12:00.0: 61 degrees, 1980 MHz"},
        {"FAKE_SLOWED=1", "GPU at 00000000:12:00.0: 61 degrees, 1980 MHz"},
        {"FAKE_SLOWED=68", "GPU at 00000000:12:00.0: 61 degrees, 1980 MHz, slowed by the power limit, heat (by the hardware)"},
        {"FAKE_LOST=3", "3 uncorrectable memory errors since the start; 61 degrees"},
        {"FAKE_MENDED=1", "1 memory error corrected since the start; 61 degrees"},
        {"FAKE_XIDS=ecc", "an uncorrectable memory error since the start; 61"},
        {"FAKE_ROWS=1", "wait for a reset to be replaced: nvidia-smi -r; 61"},
        {"FAKE_ROWS=2", "could not be replaced: have the GPU replaced; 61"},
        {"FAKE_XIDS=79", "GPU at 00000000:12:00.0: Xid 79: the GPU is gone from the bus: restart the machine"},
        {"FAKE_XIDS=45 45 94 ecc,FAKE_LOST=1", "Xid 94: memory was lost, of this program alone"},
        {"FAKE_XIDS=12345", "Xid 12345: NVIDIA's list of Xid errors tells what it means; 61"},
    };
    char text[480];
    if (!made) {
        print_message("skipped: there is no C compiler to make the driver library with\n");
        skip();
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        described(cases[i].settings, text, sizeof text);
        if (!strstr(text, cases[i].says)) fail_msg("%s: \"%s\" is not in \"%s\"", cases[i].settings, cases[i].says, text);
    }
    described("FAKE_XIDS=45 45", text, sizeof text);
    assert_null(strstr(strstr(text, "Xid 45") + 1, "Xid 45")); /* once */
    described("FAKE_XIDS=13 31 43 45 48 61 62", text, 100);      /* cut, not overrun */
    assert_int_equal(strlen(text), 99);
}

static void test_without_a_driver(void **state) {
    (void)state;
    char text[40] = "x";
    struct gpu_health *h = gpu_health_open("00000000:12:00.0");
    if (h) { /* a machine with a GPU */
        gpu_health_close(h);
        skip();
    }
    gpu_health_describe(NULL, text, sizeof text);
    assert_string_equal(text, "");
    gpu_health_close(NULL);
}

static int make_library(void **state) {
    (void)state;
    char command[300];
    if (!mkdtemp(folder)) return -1;
    snprintf(command, sizeof command, "cc -shared -fPIC -D_GNU_SOURCE -Wl,-soname,libnvidia-ml.so.1 -o %s/libnvidia-ml.so.1 tests/e2e/fake_nvml.c", folder);
    made = system(command) == 0;
    return 0;
}

static int remove_library(void **state) {
    (void)state;
    char path[100];
    snprintf(path, sizeof path, "%s/libnvidia-ml.so.1", folder);
    unlink(path);
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_without_a_driver), cmocka_unit_test(test_sentences)};
    return cmocka_run_group_tests(tests, make_library, remove_library);
}
