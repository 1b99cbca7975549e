/* plot.h: a simulation as a picture: requests running, requests queued, and pages over time. */
#ifndef MINISGL_SIM_PLOT_H
#define MINISGL_SIM_PLOT_H
#include "sim/run.h"

#include <stdio.h>

/* An SVG of three panels, readable on white and on dark pages. n_pages: the pool's. */
void plot_svg(FILE *to, const struct sim_report *r, int32_t n_pages, const char *title);

#endif
