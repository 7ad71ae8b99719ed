/*
 * engine_rate.c: how fast the model learns. Engine thread.
 *
 * Training from files lets the rate fall to nothing, and what is then served ranks better than what was there on the way. A stream has no end to fall towards;
 * but news is not spread evenly. So the rate follows the news: `heat` says how much of what is known is new. It rises by NEWS_GAIN times the share of new
 * positives, to 1 at most (a third of all being new is as good as all), and falls by a factor e every cool_passes passes over the positives. The rate lies
 * between learning_rate at heat 1 and rate_floor times that at heat 0, where a model that knows its data is kept. A steady stream settles at the heat where
 * news and cooling balance. After a restart the heat is what it would be if all positives had been there when training began: a model that was stopped early
 * goes on learning fast.
 */
#include <math.h>

#include "daemon/engine_internal.h"

#define NEWS_GAIN 3.0

void engine_rate_news(struct engine *engine, size_t n_positives)
{
	const uint64_t all = learner_n_positives(engine->learner);
	double *heat = &engine->training.heat;

	if (n_positives == 0 || all == 0)
		return;
	*heat += NEWS_GAIN * (double)n_positives / (double)all;
	if (*heat > 1.0)
		*heat = 1.0;
}

void engine_rate_recover(struct engine *engine)
{
	engine->training.heat = learner_n_positives(engine->learner) > 0 ? 1.0 : 0.0;
	engine_rate_cool(engine, learner_get_progress(engine->learner).triples);
}

void engine_rate_cool(struct engine *engine, uint64_t triples)
{
	const uint64_t all = learner_n_positives(engine->learner);

	if (all > 0 && engine->config.cool_passes > 0.0f)
		engine->training.heat *= exp(-(double)triples / ((double)all * (double)engine->config.cool_passes));
}

float engine_rate(const struct engine *engine)
{
	const struct config *config = &engine->config;

	if (!(config->cool_passes > 0.0f))
		return config->learn.learning_rate;
	return config->learn.learning_rate * (config->rate_floor + (1.0f - config->rate_floor) * (float)engine->training.heat);
}
