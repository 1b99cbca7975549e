/* test_base.c: buf, utf8, err. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/utf8.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_keeps_its_cap),
        cmocka_unit_test(json_strings_are_always_valid),
        cmocka_unit_test(utf8_goes_round),
        cmocka_unit_test(err_is_one_line),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
