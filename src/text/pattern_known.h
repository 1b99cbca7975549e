/* pattern_known.h: hand-written matchers of the pre-tokenizer expressions that models really use. Internal to text/. */
#ifndef MINISGL_TEXT_PATTERN_KNOWN_H
#define MINISGL_TEXT_PATTERN_KNOWN_H
#include "text/pattern.h"

/* The matcher of an expression, spelled exactly so; NULL when there is none. */
pattern_scan *pattern_known(const char *regex, size_t n);
size_t pattern_scan_gpt2(const char *s, size_t n);

#endif
