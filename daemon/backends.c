/*
 * backends.c: the table of backends and the only #ifdef about them. Any thread.
 */
#include "daemon/backends.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#ifdef RECD_HAVE_CUDA
extern const struct backend_ops backend_cuda;
static const struct backend_ops *cuda = &backend_cuda;
#else
static const struct backend_ops *cuda = NULL;
#endif

void backends_put_device(const struct backend_ops *ops)
{
	cuda = ops;
}

int backends_choose(const char *wanted, const struct backend_ops **ret_ops, char *reason, size_t reason_size)
{
	int rc;

	reason[0] = '\0';
	if (strcmp(wanted, "cpu") == 0) {
		*ret_ops = &backend_cpu;
		return 0;
	}
	if (cuda != NULL) {
		rc = cuda->probe(reason, reason_size);
	} else {
		snprintf(reason, reason_size, "this build has no CUDA backend");
		rc = -ENODEV;
	}
	if (rc == 0) {
		*ret_ops = cuda;
		return 0;
	}
	if (strcmp(wanted, "cuda") == 0)
		return rc;
	*ret_ops = &backend_cpu;
	return 0;
}
