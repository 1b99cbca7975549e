/* test_log.c: what a logged line looks like, in each style; that nothing logged can forge a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char line[16384];
static int saved, pipes[2];

static void catch_begin(const struct log_style *style) {
    log_set_style(style);
    assert_int_equal(pipe(pipes), 0);
    saved = dup(STDERR_FILENO);
    dup2(pipes[1], STDERR_FILENO);
}

static const char *catch_end(void) {
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(pipes[1]);
    ssize_t n = read(pipes[0], line, sizeof line - 1);
    close(pipes[0]);
    line[n > 0 ? n : 0] = 0;
    log_set_style(&(struct log_style){.lowest = LOG_INFO});
    return line;
}

static void the_plain_line(void **state) {
    (void)state;
    catch_begin(&(struct log_style){.lowest = LOG_INFO, .rank = true});
    log_info("%d of %s", 3, "four");
    log_debug("not seen");
    assert_string_equal(catch_end(), "INFO: 3 of four\n");
}

static void levels_drop_lines(void **state) {
    (void)state;
    catch_begin(&(struct log_style){.lowest = LOG_ERROR});
    log_warning("no");
    log_error("yes");
    assert_string_equal(catch_end(), "ERROR: yes\n");
    catch_begin(&(struct log_style){.lowest = LOG_DEBUG});
    log_debug("yes");
    assert_string_equal(catch_end(), "DEBUG: yes\n");
}

static void *from_rank(void *arg) {
    log_set_rank(2);
    log_warning("%s", (const char *)arg);
    return NULL;
}

static void log_in_rank(const char *words) {
    pthread_t t;
    pthread_create(&t, NULL, from_rank, (void *)words);
    pthread_join(t, NULL);
}

static void ranks_in_front_where_asked(void **state) {
    (void)state;
    catch_begin(&(struct log_style){.lowest = LOG_INFO, .rank = true});
    log_in_rank("x");
    log_info("y");
    assert_string_equal(catch_end(), "[rank 2] WARNING: x\nINFO: y\n");
    catch_begin(&(struct log_style){.lowest = LOG_INFO});
    log_in_rank("x");
    assert_string_equal(catch_end(), "WARNING: x\n");
}

static void times_in_front_where_asked(void **state) {
    (void)state;
    int n = 0;
    catch_begin(&(struct log_style){.lowest = LOG_INFO, .time = true, .rank = true});
    log_in_rank("x");
    catch_end();
    assert_int_equal(sscanf(line, "20%*2d-%*2d-%*2dT%*2d:%*2d:%*2d.%*3dZ [rank 2] WARNING: x%n", &n), 0);
    assert_int_equal(n, (int)strlen("2026-11-24T10:32:34.123Z [rank 2] WARNING: x"));
}

static void json_lines_parse(void **state) {
    (void)state;
    catch_begin(&(struct log_style){.lowest = LOG_INFO, .json = true});
    log_in_rank("a \"b\"\n\\ \x01 \xff end");
    json_t *j = json_loads(catch_end(), 0, NULL);
    assert_non_null(j);
    assert_string_equal(json_string_value(json_object_get(j, "level")), "WARNING");
    assert_string_equal(json_string_value(json_object_get(j, "message")), "a \"b\"\n\\ \x01 \xef\xbf\xbd end");
    assert_int_equal(json_integer_value(json_object_get(j, "rank")), 2);
    assert_int_equal(strlen(json_string_value(json_object_get(j, "time"))), 24);
    assert_int_equal(json_object_size(j), 4);
    json_decref(j);
    assert_int_equal(strchr(line, '\n') - line, (int)strlen(line) - 1);
}

static void nothing_forges_a_line(void **state) {
    (void)state;
    catch_begin(&(struct log_style){.lowest = LOG_INFO});
    log_info("name\nERROR: forged\x1b[2J\x7f");
    assert_string_equal(catch_end(), "INFO: name?ERROR: forged?[2J?\n");
}

static void long_lines_are_cut(void **state) {
    (void)state;
    static char words[5000];
    memset(words, 1, sizeof words - 1);
    catch_begin(&(struct log_style){.lowest = LOG_INFO});
    log_info("%s", words);
    assert_in_range(strlen(catch_end()), 2000, 2100);
    catch_begin(&(struct log_style){.lowest = LOG_INFO, .json = true});
    log_info("%s", words);
    size_t n = strlen(catch_end());
    assert_in_range(n, 6 * 2000, 6 * 2100);
    assert_int_equal(line[n - 1], '\n');
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plain_line),
        cmocka_unit_test(levels_drop_lines),
        cmocka_unit_test(ranks_in_front_where_asked),
        cmocka_unit_test(times_in_front_where_asked),
        cmocka_unit_test(json_lines_parse),
        cmocka_unit_test(nothing_forges_a_line),
        cmocka_unit_test(long_lines_are_cut),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
