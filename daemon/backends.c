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

static int choose(const char *wanted, const struct backend_ops **ret_ops, char *reason, size_t reason_size)
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

int backends_open_learner(const char *wanted, const char *setting, const struct learn_options *options, const struct backend_ops **ret_ops,
                          struct learner **ret_learner, char *reason, size_t reason_size, char *errstr, size_t errstr_size)
{
	int rc = choose(wanted, ret_ops, reason, reason_size);

	if (rc < 0) {
		snprintf(errstr, errstr_size, "%s: %s", setting, reason);
		return rc;
	}
	rc = learner_new(options, *ret_ops, ret_learner, errstr, errstr_size);
	if (rc < 0 && rc != -EINVAL && *ret_ops != &backend_cpu && strcmp(wanted, "auto") == 0) {
		snprintf(reason, reason_size, "%s", errstr);
		errstr[0] = '\0';
		*ret_ops = &backend_cpu;
		rc = learner_new(options, &backend_cpu, ret_learner, errstr, errstr_size);
	}
	return rc;
}
