/* test_dev_touch.c: the thread that asks for memory ahead: what it touches, what it leaves alone, that contents stay, that it keeps
 * still while a step runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dev/cpu/touch.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PIECE = 2 << 20, PART = 4 * PIECE, PARTS = 3, PAGE = 4096 };

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static char *map(size_t bytes) {
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    madvise(p, bytes, MADV_NOHUGEPAGE); /* so that what lies beside a piece is not there by chance */
    return p;
}

static bool kernel_can(void) {
    char *p = map(PAGE);
    bool can = !madvise(p, PAGE, MADV_POPULATE_WRITE);
    munmap(p, PAGE);
    if (!can) printf("skipped: this kernel has no MADV_POPULATE_WRITE\n");
    return can;
}

static bool resident(char *p, size_t bytes) {
    static unsigned char in[PARTS * PART / PAGE];
    assert_int_equal(mincore(p, bytes, in), 0);
    for (size_t i = 0; i < bytes / PAGE; i++)
        if (!(in[i] & 1)) return false;
    return true;
}

static bool absent(char *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += PAGE)
        if (resident(p + i, PAGE)) return false;
    return true;
}

/* A minute at most: then the test fails. */
static bool becomes_resident(char *p, size_t bytes) {
    for (int i = 0; i < 6000 && !resident(p, bytes); i++) usleep(10000);
    return resident(p, bytes);
}

static void test_ahead(void **state) {
    (void)state;
    if (!kernel_can()) return;
    char *parts = map(PARTS * PART), *buffer = map(PIECE + PAGE);
    parts[PART + 5] = 7;
    struct touch_area areas[] = {{buffer, PIECE + PAGE}};
    struct touch *t = touch_new(&(struct touch_args){.parts_at = parts, .parts = PARTS, .part_bytes = PART, .ahead = PIECE + PAGE,
                                                     .areas = areas, .n_areas = 1});
    assert_non_null(t);
    assert_true(becomes_resident(parts + (PARTS - 1) * PART + PIECE, PIECE)); /* the last of what is due */
    assert_true(resident(buffer, PIECE + PAGE));
    for (int i = 0; i < PARTS; i++) {
        assert_true(resident(parts + i * PART, 2 * PIECE));
        assert_true(absent(parts + i * PART + 2 * PIECE, 2 * PIECE));
    }
    assert_int_equal(parts[PART + 5], 7);
    touch_used(t, PIECE);
    assert_true(becomes_resident(parts + (PARTS - 1) * PART + 2 * PIECE, PIECE));
    assert_true(absent(parts + 3 * PIECE, PIECE));
    touch_used(t, PART); /* more than there is ahead */
    assert_true(becomes_resident(parts, PARTS * PART));
    touch_free(t);
    munmap(parts, PARTS * PART);
    munmap(buffer, PIECE + PAGE);
}

static void test_waits_for_steps(void **state) {
    (void)state;
    if (!kernel_can()) return;
    char *parts = map(PART);
    struct touch *t = touch_new(&(struct touch_args){.parts_at = parts, .parts = 1, .part_bytes = PART, .ahead = PIECE});
    touch_step(t);
    touch_used(t, PART);
    usleep(100000);
    assert_true(absent(parts + 3 * PIECE, PIECE)); /* at most what was begun before the step */
    touch_step(t);
    assert_true(becomes_resident(parts, PART));
    touch_free(t);
    munmap(parts, PART);
}

static void test_free_at_once(void **state) {
    (void)state;
    char *parts = map(PART);
    for (int i = 0; i < 100; i++) touch_free(touch_new(&(struct touch_args){.parts_at = parts, .parts = 1, .part_bytes = PART, .ahead = PART}));
    touch_free(NULL);
    touch_step(NULL);
    touch_used(NULL, 1);
    munmap(parts, PART);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ahead),
        cmocka_unit_test(test_waits_for_steps),
        cmocka_unit_test(test_free_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
