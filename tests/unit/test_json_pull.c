/* test_json_pull.c: the JSON reader on the JSON parsing test suite, and its calls by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "reference.h"
#include "text/json_pull.h"

#include <dirent.h>
#include <string.h>

static bool accepts(const char *s, size_t n) {
    struct json_pull j;
    struct err e;
    const char *v;
    size_t len;
    pull_init(&j, s, n, &e);
    bool ok = !pull_span(&j, &v, &len) && !pull_end(&j);
    pull_release(&j);
    return ok;
}

static void the_suite(void **state) {
    (void)state;
    char *suite = reference("json-parse-suite.tar.xz"), cmd[1200], path[1500];
    if (!suite) return;
    snprintf(cmd, sizeof cmd,
             "rm -rf build/json-suite && mkdir -p build/json-suite && tar -xJf '%s' -C build/json-suite && "
             "find build/json-suite -name '[yn]_*.json'",
             suite);
    free(suite);
    FILE *list = popen(cmd, "r");
    size_t n, seen = 0;
    for (char *text; fgets(path, sizeof path, list); seen++) {
        path[strcspn(path, "\n")] = 0;
        assert_int_equal(file_read(path, 1 << 26, &text, &n, NULL), 0);
        bool ok = accepts(text, n), want = strrchr(path, '/')[1] == 'y';
        if (ok != want) print_message("%s\n", path);
        assert_int_equal(ok, want);
        free(text);
    }
    assert_int_equal(pclose(list), 0);
    assert_true(seen > 200);
}

static void values_by_hand(void **state) {
    (void)state;
    static const char text[] = "{\"a\\u00e9\\ud83d\\ude00\":[7, 4294967295], \"b\":{}}";
    struct json_pull j;
    const char *s;
    size_t n;
    uint32_t v;
    bool first = true, inner = true;
    pull_init(&j, text, sizeof text - 1, NULL);
    assert_int_equal(pull_enter(&j, '{'), 0);
    assert_int_equal(pull_more(&j, '}', &first), 1);
    assert_int_equal(pull_key(&j, &s, &n), 0);
    assert_int_equal(n, 7);
    assert_memory_equal(s, "a\xc3\xa9\xf0\x9f\x98\x80", 7);
    assert_int_equal(pull_enter(&j, '['), 0);
    assert_int_equal(pull_more(&j, ']', &inner), 1);
    assert_int_equal(pull_uint(&j, &v), 0);
    assert_int_equal(v, 7);
    assert_int_equal(pull_more(&j, ']', &inner), 1);
    assert_int_equal(pull_uint(&j, &v), 0);
    assert_int_equal(v, UINT32_MAX);
    assert_int_equal(pull_more(&j, ']', &inner), 0);
    assert_int_equal(pull_more(&j, '}', &first), 1);
    assert_int_equal(pull_key(&j, &s, &n), 0);
    assert_int_equal(pull_span(&j, &s, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(pull_more(&j, '}', &first), 0);
    assert_int_equal(pull_end(&j), 0);
    pull_release(&j);
}

static void the_first_error_stays(void **state) {
    (void)state;
    struct json_pull j;
    struct err e;
    uint32_t v;
    pull_init(&j, " x", 2, &e);
    assert_int_equal(pull_uint(&j, &v), -1);
    assert_int_equal(pull_enter(&j, '{'), -1);
    assert_non_null(strstr(e.text, "byte 1: an integer"));
    pull_release(&j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_suite),
        cmocka_unit_test(values_by_hand),
        cmocka_unit_test(the_first_error_stays),
    };
    return cmocka_run_group_tests_name("json_pull", tests, NULL, NULL);
}
