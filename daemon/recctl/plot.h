/*
 * plot.h: curves as an SVG file, without a library: panels side by side, one curve each, with axes and round tick values.
 */
#ifndef DAEMON_RECCTL_PLOT_H
#define DAEMON_RECCTL_PLOT_H

#include <stddef.h>

struct plot_panel {
	const char *title;
	const char *x_label;
	const double *values; /* [n] at x = 1, 2, ... n; what is not finite leaves a gap */
	size_t n;
	size_t mark;            /* x of the point that stands out; 0: none */
	const char *mark_label; /* beside that point */
};

#define PLOT_PANELS_MAX 4

/*
 * Writes `path`: an older file is replaced once the new one is whole. Texts may hold any UTF-8; what XML forbids is replaced by '?'. 0, or -errno with text.
 */
int plot_write(const char *path, const char *title, const struct plot_panel *panels, size_t n_panels, char *errstr, size_t errstr_size);

/* Whether plot_write() can write there: makes its temporary file and takes it away again. 0, or -errno with text. */
int plot_check(const char *path, char *errstr, size_t errstr_size);

/*
 * Round tick values that cover [low, high]: the first one, the distance (1, 2 or 5 times a power of ten) and how many, between 2 and 9. low <= high, both
 * finite; equal ones are taken apart.
 */
void plot_ticks(double low, double high, double *ret_first, double *ret_step, int *ret_n);

#endif
