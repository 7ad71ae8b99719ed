/*
 * json_fields.cpp: one JSON object to the values of its known keys; the only C++ and the only file that sees simdjson.
 *
 * simdjson's first stage finds the tokens of the line and checks its UTF-8; this file walks them in order through the On-Demand interface, which by
 * itself would check only what is read. So every token is checked here: what nobody reads is walked as well. A log writes its keys in the same order
 * line after line: the key seen last time at this place is tried first, with two 8-byte compares.
 *
 * One parser per thread. It allocates when it is made and never again. Works with simdjson 3.0.1 and later; no iterate_many (one damaged
 * line would take its whole block with it).
 */
#ifndef NDEBUG
#define NDEBUG /* simdjson's own assertions; recd has none in this file */
#endif
#include <simdjson.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <system_error>
#include <utility>

#include <locale.h>

#include "ingest/json_fields.h"

using namespace simdjson;

namespace {

constexpr size_t GUESS_MAX = 32;     /* fields of a line whose key is guessed from the line before */
constexpr uint32_t DEPTH_LIMIT = 256; /* keeps the recursion of walk() small, whatever the configuration says */

const char *const key_names[KEY_COUNT] = {
    "user_id",     "item_id",  "shown_at",   "surface",    "position",       "request_id", "impression_id", "event_id",   "type",
    "value",       "occurred_at", "watch_id", "started_at", "ended_at",      "watch_time_sec", "completion", "device_type", "session_id",
    "title",       "release_year", "duration_sec", "genres", "tags",         "country",    "ui_language",   "genre_pref",
};

/* A key name and its closing quote (at most 16 bytes) as two words and the masks of what counts in them. */
struct key_pattern {
	uint64_t word[2];
	uint64_t mask[2];
	size_t len;
};

inline uint64_t load_word(const char *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return word;
}

/* `key` points behind the opening quote; at least 16 bytes are readable there. */
inline bool key_matches(const key_pattern &pattern, const char *key)
{
	return (((load_word(key) ^ pattern.word[0]) & pattern.mask[0]) | ((load_word(key + 8) ^ pattern.word[1]) & pattern.mask[1])) == 0;
}

inline bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

inline bool is_digit(char c)
{
	return static_cast<unsigned char>(c - '0') <= 9;
}

/* A token as written, without the blanks that follow it. */
inline std::string_view trim(std::string_view token)
{
	size_t len = token.size();

	while (len > 0 && is_blank(token[len - 1]))
		len--;
	return token.substr(0, len);
}

/* RFC 8259, section 6. True when `token` is one number and nothing else; notes whether it is an integer, and which. */
bool read_number(std::string_view token, json_value *ret)
{
	const char *p = token.data(), *end = p + token.size();
	bool negative = p < end && *p == '-';
	const char *digits = negative ? p + 1 : p;
	uint64_t sum = 0;
	bool overflow = false;

	ret->negative = negative;
	for (p = digits; p < end && is_digit(*p); p++) {
		uint64_t digit = static_cast<uint64_t>(*p - '0');

		if (p - digits >= 18)
			overflow = overflow || sum > (UINT64_MAX - digit) / 10;
		sum = sum * 10 + digit;
	}
	if (p == digits || (*digits == '0' && p - digits > 1))
		return false;
	if (p == end) {
		uint64_t limit = static_cast<uint64_t>(INT64_MAX) + (negative ? 1 : 0);

		ret->kind = JSON_INTEGER;
		ret->overflow = overflow || sum > limit;
		ret->integer = ret->overflow ? 0 : static_cast<int64_t>(negative ? 0 - sum : sum);
		return true;
	}
	ret->kind = JSON_REAL;
	ret->overflow = 0;
	if (*p == '.') {
		const char *fraction = ++p;

		while (p < end && is_digit(*p))
			p++;
		if (p == fraction)
			return false;
	}
	if (p < end && (*p == 'e' || *p == 'E')) {
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		const char *exponent = p;
		while (p < end && is_digit(*p))
			p++;
		if (p == exponent)
			return false;
	}
	return p == end;
}

} // namespace

struct json_parser {
	locale_t c_locale;
	ondemand::parser parser;
	uint32_t depth_max;
	key_pattern patterns[KEY_COUNT];
	uint8_t guess[GUESS_MAX];
	const char *end;    /* of the line */
	bool has_backslash; /* anywhere in the line: without one, no string has an escape */
};

namespace {

json_result walk(json_parser *self, ondemand::value &value, uint32_t depth, json_value *ret);

/*
 * The token at a value, as written. Where the line ends too early, simdjson's next token lies at the line's end or behind it, with a length that
 * means nothing: then this is empty.
 */
inline std::string_view token_of(const json_parser *self, ondemand::value &value)
{
	std::string_view token = value.raw_json_token();

	if (token.data() >= self->end)
		return std::string_view();
	return trim(token.substr(0, static_cast<size_t>(self->end - token.data())));
}

/*
 * A checked number to a double. Not by simdjson: in 3.0.1 get_double() is silently wrong for "0." and more than 19 digits (0.72922337203685477580 reads
 * as 0.17). Too large sets `overflow`; too small is 0.
 */
void read_double(const json_parser *self, std::string_view token, json_value *ret)
{
	auto result = std::from_chars(token.data(), token.data() + token.size(), ret->number);

	ret->overflow = 0;
	if (result.ec == std::errc::result_out_of_range) {
		ret->number = strtod_l(token.data(), nullptr, self->c_locale); /* what follows the token ends it */
		ret->overflow = std::isinf(ret->number);
	}
}

/* A string with escapes: unescaped by simdjson, which refuses unknown escapes and lone surrogates. */
bool unescape(simdjson_result<std::string_view> result, std::string_view *ret)
{
	if (std::move(result).get(*ret) != SUCCESS)
		return false;
	return ret->empty() || memchr(ret->data(), '\0', ret->size()) == nullptr;
}

/* unescaped_key() takes no argument in simdjson 3.0, one in 3.6, and one with a default later; lone surrogates are refused in each. */
template <typename field_type> auto unescaped_key(field_type &field, int) -> decltype(field.unescaped_key(false))
{
	return field.unescaped_key(false);
}

template <typename field_type> auto unescaped_key(field_type &field, long) -> decltype(field.unescaped_key())
{
	return field.unescaped_key();
}

inline json_result walk_string(const json_parser *self, ondemand::value &value, std::string_view token, json_value *ret)
{
	if (token.size() < 2 || token.back() != '"')
		return JSON_DAMAGED;
	std::string_view text = token.substr(1, token.size() - 2);
	if (self->has_backslash && memchr(text.data(), '\\', text.size())) {
		if (!unescape(value.get_string(), &text))
			return JSON_DAMAGED;
	} else if (value.get_raw_json_string().error() != SUCCESS) { /* consumed here: cheaper than having the iterator skip it */
		return JSON_DAMAGED;
	}
	ret->kind = JSON_STRING;
	ret->text = text.data();
	ret->len = text.size();
	return JSON_GOOD;
}

json_result walk_array(json_parser *self, ondemand::value &value, uint32_t depth, json_value *ret)
{
	ondemand::array array;
	bool strings = true;

	if (depth >= self->depth_max)
		return JSON_TOO_DEEP;
	if (value.get_array().get(array) != SUCCESS)
		return JSON_DAMAGED;
	for (auto element : array) {
		ondemand::value inner;
		json_value got;

		if (element.get(inner) != SUCCESS)
			return JSON_DAMAGED;
		json_result result = walk(self, inner, depth + 1, &got);
		if (result != JSON_GOOD)
			return result;
		strings = strings && got.kind == JSON_STRING;
	}
	ret->kind = strings ? JSON_STRING_ARRAY : JSON_OTHER_ARRAY;
	return JSON_GOOD;
}

/* The key that starts behind the opening quote, as written. False: its end is not in the line. */
bool raw_key(const json_parser *self, const char *key, std::string_view *ret, bool *ret_escaped)
{
	const char *p = key;

	*ret_escaped = false;
	while (p < self->end && *p != '"') {
		if (*p == '\\') {
			*ret_escaped = true;
			p++;
		}
		p++;
	}
	if (p >= self->end)
		return false;
	*ret = std::string_view(key, static_cast<size_t>(p - key));
	return true;
}

json_result walk_object(json_parser *self, ondemand::value &value, uint32_t depth, json_value *ret)
{
	ondemand::object object;
	bool numbers = true;

	if (depth >= self->depth_max)
		return JSON_TOO_DEEP;
	if (value.get_object().get(object) != SUCCESS)
		return JSON_DAMAGED;
	for (auto element : object) {
		ondemand::field field;
		std::string_view key;
		json_value got;
		bool escaped;

		if (std::move(element).get(field) != SUCCESS)
			return JSON_DAMAGED;
		if (!raw_key(self, field.key().raw(), &key, &escaped) || (escaped && !unescape(unescaped_key(field, 0), &key)))
			return JSON_DAMAGED;
		json_result result = walk(self, field.value(), depth + 1, &got);
		if (result != JSON_GOOD)
			return result;
		numbers = numbers && (got.kind == JSON_INTEGER || got.kind == JSON_REAL);
	}
	ret->kind = numbers ? JSON_NUMBER_OBJECT : JSON_OTHER_OBJECT;
	return JSON_GOOD;
}

/* Checks one value that lies inside `depth` levels, and everything in it. */
json_result walk(json_parser *self, ondemand::value &value, uint32_t depth, json_value *ret)
{
	std::string_view token = token_of(self, value);

	if (token.empty())
		return JSON_DAMAGED;
	switch (token[0]) {
	case '"':
		return walk_string(self, value, token, ret);
	case '{':
		return walk_object(self, value, depth, ret);
	case '[':
		return walk_array(self, value, depth, ret);
	case 't':
	case 'f':
		ret->kind = JSON_BOOL;
		return token == "true" || token == "false" ? JSON_GOOD : JSON_DAMAGED;
	case 'n':
		ret->kind = JSON_NULL;
		return token == "null" ? JSON_GOOD : JSON_DAMAGED;
	default:
		return read_number(token, ret) ? JSON_GOOD : JSON_DAMAGED;
	}
}

/* Which of the wanted keys this is; KEY_COUNT: none of them. False: the key is damaged. */
bool find_key(json_parser *self, ondemand::field &field, size_t index, uint32_t keys, unsigned *ret_key)
{
	const char *raw = field.key().raw();
	uint8_t guess = index < GUESS_MAX ? self->guess[index] : static_cast<uint8_t>(KEY_COUNT);
	std::string_view name;
	bool escaped;

	/* A match lies in the line with its closing quote, unless the whole key came from behind it: then its value does too, and is refused. */
	if (guess < KEY_COUNT && (keys >> guess & 1) != 0 && key_matches(self->patterns[guess], raw)) {
		*ret_key = guess;
		return true;
	}
	if (!raw_key(self, raw, &name, &escaped) || (escaped && !unescape(unescaped_key(field, 0), &name)))
		return false;
	*ret_key = KEY_COUNT;
	for (unsigned key = 0; key < KEY_COUNT; key++) {
		if ((keys >> key & 1) != 0 && name == std::string_view(key_names[key], self->patterns[key].len)) {
			*ret_key = key;
			break;
		}
	}
	if (index < GUESS_MAX)
		self->guess[index] = static_cast<uint8_t>(*ret_key);
	return true;
}

/*
 * One to eight digits and nothing else: all at once, for lengths that differ from line to line make a loop's end hard to foresee. Reads 8 bytes. A number
 * that begins with 0 is left to read_number().
 */
inline bool read_few_digits(std::string_view token, json_value *ret)
{
	constexpr uint64_t zeros = 0x3030303030303030u, highs = 0xf0f0f0f0f0f0f0f0u;

	if (token.size() > 8 || token[0] == '0' || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
		return false;
	const unsigned missing = 64 - 8 * static_cast<unsigned>(token.size());
	uint64_t digits = (load_word(token.data()) << missing) | (zeros & ~(~UINT64_C(0) << missing));
	if ((digits & highs) != zeros || ((digits + 0x0606060606060606u) & highs) != zeros)
		return false;
	digits -= zeros;
	digits = digits * 10 + (digits >> 8); /* pairs in the even bytes */
	ret->integer = static_cast<int64_t>(((digits & 0x000000ff000000ffu) * (100 + (UINT64_C(1000000) << 32)) +
	                                     ((digits >> 16) & 0x000000ff000000ffu) * (1 + (UINT64_C(10000) << 32))) >> 32);
	ret->kind = JSON_INTEGER;
	ret->overflow = 0;
	ret->negative = 0;
	return true;
}

/* walk() for a value of the line itself, with the two most frequent cases first. */
inline json_result read_value(json_parser *self, ondemand::value &value, json_value *ret)
{
	std::string_view token = token_of(self, value);

	if (token.empty())
		return JSON_DAMAGED;
	if (token[0] == '"')
		return walk_string(self, value, token, ret);
	if (read_few_digits(token, ret))
		return JSON_GOOD;
	return walk(self, value, 1, ret);
}

/* Which of the known keys were seen, and which twice: bits, in registers while a line is read. */
struct key_bits {
	uint32_t seen, twice;
};

inline json_result read_field(json_parser *self, ondemand::field &field, size_t index, uint32_t keys, uint32_t numbers, key_bits *bits, json_fields *ret)
{
	json_value scratch;
	unsigned key;

	if (!find_key(self, field, index, keys, &key))
		return JSON_DAMAGED;
	json_value *value = key < KEY_COUNT ? &ret->value[key] : &scratch;
	json_result result = read_value(self, field.value(), value);
	if (result != JSON_GOOD || key == KEY_COUNT)
		return result;
	uint32_t bit = UINT32_C(1) << key;
	bits->twice |= bits->seen & bit;
	bits->seen |= bit;
	if ((numbers & bit) != 0) {
		if (value->kind == JSON_INTEGER && !value->overflow)
			value->number = static_cast<double>(value->integer);
		else if (value->kind == JSON_INTEGER || value->kind == JSON_REAL)
			read_double(self, token_of(self, field.value()), value);
	}
	return JSON_GOOD;
}

} // namespace

extern "C" struct json_parser *json_parser_new(size_t line_bytes_max, uint32_t depth_max)
{
	auto *self = new (std::nothrow) json_parser;

	if (!self)
		return nullptr;
	self->depth_max = depth_max < DEPTH_LIMIT ? depth_max : DEPTH_LIMIT;
	memset(self->guess, KEY_COUNT, sizeof(self->guess));
	for (unsigned key = 0; key < KEY_COUNT; key++) {
		char bytes[16] = {0}, mask[16] = {0};
		size_t len = strlen(key_names[key]);

		memcpy(bytes, key_names[key], len);
		bytes[len] = '"';
		memset(mask, 0xff, len + 1);
		memcpy(self->patterns[key].word, bytes, sizeof(bytes));
		memcpy(self->patterns[key].mask, mask, sizeof(mask));
		self->patterns[key].len = len;
	}
	self->c_locale = newlocale(LC_ALL_MASK, "C", nullptr);
	if (!self->c_locale || self->parser.allocate(line_bytes_max, DEPTH_LIMIT + 8) != SUCCESS) {
		json_parser_free(self);
		return nullptr;
	}
	return self;
}

extern "C" void json_parser_free(struct json_parser *parser)
{
	if (parser && parser->c_locale)
		freelocale(parser->c_locale);
	delete parser;
}

extern "C" enum json_result json_fields_parse(struct json_parser *parser, const char *line, size_t len, uint32_t keys, uint32_t numbers,
                                              struct json_fields *ret)
{
	ondemand::document document;
	ondemand::object object;
	const char *location;
	size_t index = 0;
	key_bits bits = {0, 0};

	parser->end = line + len;
	parser->has_backslash = memchr(line, '\\', len) != nullptr;
	error_code error = parser->parser.iterate(line, len, len + SIMDJSON_PADDING).get(document);
	if (error != SUCCESS)
		return error == MEMALLOC ? JSON_NO_MEMORY : JSON_DAMAGED;
	if (document.get_object().get(object) != SUCCESS)
		return JSON_DAMAGED;
	for (auto element : object) {
		if (element.error() != SUCCESS)
			return JSON_DAMAGED;
		/* not get(): a field just written is not read back as a whole for the copy, which would wait for the stores */
		json_result result = read_field(parser, element.value_unsafe(), index++, keys, numbers, &bits, ret);
		if (result != JSON_GOOD)
			return result;
	}
	ret->seen = bits.seen;
	ret->twice = bits.twice;
	/* Only the object's own end is the end of the tokens; anything else is left over, or came from behind the line. */
	return document.current_location().get(location) == OUT_OF_BOUNDS ? JSON_GOOD : JSON_DAMAGED;
}
