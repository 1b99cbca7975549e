/* test_stop.c: stop strings against a stupid twin. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "text/stop.h"

#include <stdlib.h>
#include <string.h>

/* The twin: look at every end of the text, every string. */
struct verdict {
    int which;
    size_t end, start;
};
static struct verdict twin(const char *text, size_t n, const struct stop_string *str, size_t k) {
    for (size_t end = 1; end <= n; end++) {
        int best = -1;
        for (size_t i = 0; i < k; i++)
            if (str[i].n <= end && !memcmp(text + end - str[i].n, str[i].s, str[i].n) &&
                (best < 0 || str[i].n > str[best].n))
                best = (int)i;
        if (best >= 0) return (struct verdict){best, end, end - str[best].n};
    }
    return (struct verdict){-1, n, n};
}

/* How many bytes at the end of a text may still become a stop string. */
static size_t twin_held(const char *text, size_t n, const struct stop_string *str, size_t k) {
    size_t most = 0;
    for (size_t i = 0; i < k; i++)
        for (size_t m = 1; m < str[i].n && m <= n; m++)
            if (m > most && !memcmp(text + n - m, str[i].s, m)) most = m;
    return most;
}

static void random_string(char *s, size_t n, int letters) {
    for (size_t i = 0; i < n; i++) s[i] = (char)('a' + rand() % letters);
}

static void one_round(int letters, bool include) {
    char text[64], store[STOP_MAX][8];
    struct stop_string str[STOP_MAX];
    size_t n = (size_t)rand() % 64, k = (size_t)rand() % 5, at = 0;
    random_string(text, n, letters);
    for (size_t i = 0; i < k; i++) {
        str[i] = (struct stop_string){store[i], 1 + (size_t)rand() % 7};
        random_string(store[i], str[i].n, letters);
    }
    struct stop_set *set = stop_set_new(str, k, NULL);
    struct stop s;
    struct buf out;
    buf_init(&out, 1000);
    stop_init(&s, set, include);
    struct verdict want = twin(text, n, str, k);
    bool hit = false;
    while (at < n && !hit) {
        size_t part = 1 + (size_t)rand() % 6;
        if (part > n - at) part = n - at;
        hit = stop_push(&s, text + at, part, &out);
        at += part;
        assert_int_equal(hit, want.which >= 0 && want.end <= at);
        if (!hit) assert_int_equal(out.len, at - twin_held(text, at, str, k));
    }
    stop_finish(&s, &out);
    assert_int_equal(hit, want.which >= 0);
    size_t expect = include ? want.end : want.start;
    assert_int_equal(out.len, expect);
    assert_memory_equal(buf_str(&out), text, expect);
    if (hit) assert_memory_equal(str[s.matched].s, str[want.which].s, str[want.which].n);
    buf_release(&out);
    stop_release(&s);
    stop_set_free(set);
}

static void random_rounds_agree_with_the_twin(void **state) {
    (void)state;
    srand(7);
    for (int i = 0; i < 200000; i++) one_round(1 + i % 3, i & 8);
}

static void limits_are_told(void **state) {
    (void)state;
    struct err e = {0};
    static char long_one[STOP_MAX_BYTES + 1];
    struct stop_string many[STOP_MAX + 1] = {{"a", 1}}, empty = {"", 0}, large = {long_one, sizeof long_one};
    assert_null(stop_set_new(many, STOP_MAX + 1, &e));
    assert_non_null(strstr(e.text, "at most 16"));
    assert_null(stop_set_new(&empty, 1, &e));
    assert_null(stop_set_new(&large, 1, &e));
    large.n--;
    struct stop_set *set = stop_set_new(&large, 1, &e);
    assert_non_null(set);
    stop_set_free(set);
}

/* The classic bad case: a long run that nearly matches at every place. */
static void a_near_match_everywhere_is_linear(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    char *text = malloc(N), str[STOP_MAX_BYTES];
    memset(text, 'a', N);
    memset(str, 'a', sizeof str);
    str[sizeof str - 1] = 'b';
    struct stop_string one = {str, sizeof str};
    struct stop_set *set = stop_set_new(&one, 1, NULL);
    struct stop s;
    struct buf out;
    buf_init(&out, N);
    stop_init(&s, set, false);
    for (size_t i = 0; i < N; i += 16) assert_false(stop_push(&s, text + i, 16, &out));
    assert_int_equal(out.len, N - (STOP_MAX_BYTES - 1));
    assert_true(stop_push(&s, "b", 1, &out));
    assert_int_equal(out.len, N - (STOP_MAX_BYTES - 1));
    buf_release(&out);
    stop_release(&s);
    stop_set_free(set);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_rounds_agree_with_the_twin),
        cmocka_unit_test(limits_are_told),
        cmocka_unit_test(a_near_match_everywhere_is_linear),
    };
    return cmocka_run_group_tests_name("stop", tests, NULL, NULL);
}
