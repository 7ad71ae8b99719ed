/*
 * learner_batch.c: batches of users over the published item tables, on the backend's device where it has one (learn.h). One thread, the engine's.
 */
#include <errno.h>

#include "trainer/learn/learner_internal.h"
#include "trainer/learn/personalize.h"

int learner_has_batches(const struct learner *learner)
{
	return learner->ops->personalize && learner->ops->topk && !learner->fault;
}

/* One user after another. */
static int personalize_here(const struct tables *tables, const struct personalize_batch *batch)
{
	struct personalize_scratch scratch = {0};
	int rc = 0;
	for (uint32_t k = 0; k < batch->n && rc == 0; k++) {
		struct personalize_options options = *batch->options;
		uint64_t n = batch->offsets[k + 1] - batch->offsets[k];
		options.seed = batch->seeds ? batch->seeds[k] : options.seed;
		batch->ret_rcs[k] = personalize_row(tables, batch->starts + (size_t)k * tables->dim, batch->positives + batch->offsets[k], n, batch->candidates,
		                                    batch->n_candidates, &options, &scratch, batch->ret_rows + (size_t)k * tables->dim);
		if (batch->ret_rcs[k] == -ENOMEM)
			rc = -ENOMEM;
	}
	personalize_scratch_free(&scratch);
	return rc;
}

/* The device's own tables are those of the last pull. A refused batch changed nothing, so that memory for it is no fault. */
static int batch_fault(const struct learner *learner, const struct tables *tables)
{
	if (learner->fault)
		return learner->fault;
	return tables->epoch && tables->epoch == learner->pulled ? 0 : -ESTALE;
}

int learner_personalize(struct learner *learner, const struct tables *tables, const struct personalize_batch *batch)
{
	if (!learner->ops->personalize)
		return personalize_here(tables, batch);
	int rc = batch_fault(learner, tables);
	if (rc == 0)
		rc = learner->ops->personalize(learner->backend, batch);
	return rc == -EIO ? learner_note(learner, rc, "personalizing") : rc;
}

int learner_topk(struct learner *learner, const struct tables *tables, const struct topk_batch *batch)
{
	if (!learner->ops->topk)
		return -ENOSYS;
	int rc = batch_fault(learner, tables);
	if (rc == 0)
		rc = learner->ops->topk(learner->backend, batch);
	return rc == -EIO ? learner_note(learner, rc, "ranking") : rc;
}
