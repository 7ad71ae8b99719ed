/*
 * source_kafka_pace.c: keeps librdkafka before 2.2 from fetching far ahead of what is decoded.
 *
 * Its fetcher outruns a consumer that does something with a record, until its queue is full; then it fetches nothing for a whole second, which no setting
 * of those versions shortens. A queue that holds more than a second's records would hide that, and takes a gigabyte of memory that is cold when its turn comes.
 * So the thread that received a response holds it back while enough records wait. librdkafka wants no blocking work in this callback: the wait is
 * PACE_WAIT_MS at most, about what unpacking a response takes, and whatever else that thread has to send goes out between two responses. A consumer that is slower
 * still meets the full queue as before. Later versions have fetch.queue.backoff.ms, and nothing of this is used (see source_kafka.c).
 */
#include <errno.h>
#include <time.h>

#include "ingest/source_kafka.h"

#define PACE_RECORDS 8192  /* enough for the milliseconds that a broker needs to answer */
#define BYTES_A_RECORD 64u /* of a response, compressed: a guess until the polling thread looks again */
#define PACE_WAIT_MS 40
#define API_FETCH 1

void kafka_pace_note(struct source_kafka *source)
{
	if (source->paced)
		atomic_store_explicit(&source->depth, rd_kafka_queue_length(source->queue), memory_order_relaxed);
}

/* On the thread of a broker connection. */
static rd_kafka_resp_err_t on_response(rd_kafka_t *rk, int fd, const char *broker, int32_t broker_id, int16_t api, int16_t api_version, int32_t correlation,
                                       size_t size, int64_t rtt, rd_kafka_resp_err_t err, void *opaque)
{
	struct source_kafka *source = opaque;
	int64_t end_us = 0;

	(void)rk, (void)fd, (void)broker, (void)broker_id, (void)api_version, (void)correlation, (void)rtt, (void)err;
	if (api != API_FETCH)
		return RD_KAFKA_RESP_ERR_NO_ERROR;
	while (atomic_load_explicit(&source->depth, memory_order_relaxed) >= PACE_RECORDS && !atomic_load(&source->stop)) {
		const int64_t now_us = kafka_now_us();

		if (end_us == 0) {
			end_us = now_us + PACE_WAIT_MS * 1000;
			atomic_fetch_add_explicit(&source->held, 1, memory_order_relaxed);
		}
		if (now_us >= end_us)
			break;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	atomic_fetch_add_explicit(&source->depth, size / BYTES_A_RECORD, memory_order_relaxed);
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t on_new(rd_kafka_t *rk, const rd_kafka_conf_t *conf, void *source, char *errstr, size_t errstr_size)
{
	(void)conf, (void)errstr, (void)errstr_size;
	return rd_kafka_interceptor_add_on_response_received(rk, "recd-pace", on_response, source);
}

/*
 * A client that is refused after on_new() frees its interceptors, and so does whoever frees the configuration that is left (librdkafka 2.0.2). So a client without
 * brokers and interceptors is tried first: what is refused is refused there.
 */
int kafka_pace_install(struct source_kafka *source, rd_kafka_conf_t *conf, char *said, size_t said_size)
{
	rd_kafka_conf_t *tried = rd_kafka_conf_dup(conf);
	rd_kafka_t *rk;

	(void)rd_kafka_conf_set(tried, "bootstrap.servers", NULL, NULL, 0);
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, tried, said, said_size);
	if (!rk) {
		rd_kafka_conf_destroy(tried);
		return -EINVAL;
	}
	rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	source->paced = rd_kafka_conf_interceptor_add_on_new(conf, "recd-pace", on_new, source) == RD_KAFKA_RESP_ERR_NO_ERROR;
	return 0;
}
