/* log.h: lines on standard error, for people ("INFO: ...") or for programs (one JSON object a line). Safe from any
 * thread: one write() a line. Control bytes in what is logged cannot forge a line. */
#ifndef MINISGL_BASE_LOG_H
#define MINISGL_BASE_LOG_H
#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

/* How lines look. Text: `[TIME ][[rank N] ]LEVEL: words`, TIME as 2026-11-24T10:32:34.123Z. JSON objects have time,
 * level, message and, in a rank's thread, rank; so time and rank matter to text only. */
struct log_style {
    enum log_level lowest; /* less important lines are dropped */
    bool json, time, rank;
};

/* Text from LOG_INFO on, nothing in front, until set; set before threads start. */
void log_set_style(const struct log_style *style);
/* Drop also what is less important than this, but keep all when debugging. */
void log_quiet(enum log_level lowest);
/* The calling thread is this rank from now on (-1, as threads begin: none). */
void log_set_rank(int rank);
/* Whether a line on standard error may be drawn again and again, as progress bars do: text format on a terminal. */
bool log_on_terminal(void);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

#endif
