/* test_base.c: buf, utf8, err. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void buf_keeps_its_cap(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 10);
    assert_int_equal(buf_adds(&b, "12345"), 0);
    assert_int_equal(buf_adds(&b, "678901"), -1);
    assert_true(b.over);
    assert_int_equal(buf_addc(&b, 'x'), -1);
    assert_string_equal(buf_str(&b), "12345");
    buf_reset(&b);
    assert_int_equal(buf_addf(&b, "%s-%d", "abc", 42), 0);
    assert_string_equal(buf_str(&b), "abc-42");
    buf_release(&b);
}

static void json_strings_are_always_valid(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    buf_add_json(&b, "a\"\\\n\x01\xc3\xa9\xff\xe2\x82", 10);
    assert_string_equal(buf_str(&b), "\"a\\\"\\\\\\n\\u0001\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    buf_release(&b);
}

static void utf8_goes_round(void **state) {
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        char s[4];
        uint32_t back;
        size_t w = utf8_put(c, s);
        if (c >= 0xd800 && c <= 0xdfff) {
            assert_int_equal(w, 0);
            continue;
        }
        assert_int_equal(utf8_get(s, w, &back), w);
        assert_int_equal(back, c);
        if (w > 1) assert_int_equal(utf8_get(s, w - 1, &back), 0);
    }
    assert_false(utf8_valid("\xc0\x80", 2));
    assert_false(utf8_valid("\xed\xa0\x80", 3));
    assert_true(utf8_valid("plain ascii of some length \xf0\x9f\x98\x80", 31));
}

static void err_is_one_line(void **state) {
    (void)state;
    struct err e;
    assert_int_equal(err_input(&e, "bad\n%s", "thing"), -1);
    assert_string_equal(e.text, "bad thing");
    err_prefix(&e, "%s: ", "file");
    assert_string_equal(e.text, "file: bad thing");
    assert_int_equal(e.kind, ERR_INPUT);
}

/* In a child: map a file, cut it, read behind its new end. */
static void read_behind_the_end(const char *path, int to) {
    struct file_map m;
    struct err e;
    dup2(to, STDERR_FILENO);
    file_map_guard();
    if (file_map_open(&m, path, &e) || truncate(path, 0)) _exit(3);
    volatile char c = m.data[9000];
    (void)c;
    _exit(4);
}

static void a_file_that_shrinks_is_named(void **state) {
    (void)state;
    char path[] = "/tmp/minisgl-test-XXXXXX", text[512] = {0};
    int fd = mkstemp(path), io[2], status;
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 10000), 0);
    assert_int_equal(pipe(io), 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) read_behind_the_end(path, io[1]);
    close(io[1]);
    waitpid(child, &status, 0);
    assert_true(read(io[0], text, sizeof text - 1) > 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_non_null(strstr(text, path));
    close(io[0]);
    close(fd);
    unlink(path);
}

static void only_regular_files_are_read(void **state) {
    (void)state;
    struct err e;
    char *data;
    size_t n;
    assert_int_equal(file_read("/dev/zero", 100, &data, &n, &e), -1);
    assert_int_equal(file_read("/", 100, &data, &n, &e), -1);
    assert_int_equal(file_read("/nonexistent", 100, &data, &n, &e), -1);
    assert_int_equal(file_read("Makefile", 10, &data, &n, &e), -1);
    assert_int_equal(e.kind, ERR_INPUT);
    assert_int_equal(file_read("Makefile", 1 << 20, &data, &n, &e), 0);
    assert_int_equal(strlen(data), n);
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_keeps_its_cap),
        cmocka_unit_test(json_strings_are_always_valid),
        cmocka_unit_test(utf8_goes_round),
        cmocka_unit_test(err_is_one_line),
        cmocka_unit_test(a_file_that_shrinks_is_named),
        cmocka_unit_test(only_regular_files_are_read),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
