/*
 * load_http.c
 *		Steps of load.c by HTTP, on a connection that is kept: http URL METHOD PATH
 *		BODY HEADER..., where the BODY of a GET is not sent.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "load.h"

enum
{
	METHOD,
	PATH,
	BODY,
	HEADERS
};

static size_t
count_bytes(char *data, size_t size, size_t n, void *total)
{
	(void) data;
	*(size_t *) total += size * n;
	return size * n;
}

static void
connect_http(LoadStep *step)
{
	const LoadCommand *command = &step->commands[0];
	CURL *curl = load_shared_connection(step);

	if (step->ncommands != 1 || command->nwords < HEADERS)
		load_fail("an http step is a URL, a method, a path, a body and headers");
	if (curl == NULL)
		curl = curl_easy_init();
	if (curl == NULL)
		load_fail("http: no memory");
	step->connection = curl;
}

static void
run_http(const LoadStep *step, const LoadKey *key)
{
	const LoadCommand *command = &step->commands[0];
	CURL *curl = step->connection;
	char filled[LOAD_MAX_WORDS][LOAD_MAX_FIELD + 64];
	char url[LOAD_MAX_FIELD * 2];
	struct curl_slist *headers = NULL;
	size_t total = 0;
	long status = 0;
	CURLcode code;

	curl_easy_reset(curl);
	snprintf(url, sizeof(url), "%s%s", step->target,
			 load_fill_word(command->words[PATH], key, filled[PATH], sizeof(filled[PATH])));
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, count_bytes);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &total);
	if (strcmp(command->words[METHOD], "GET") != 0)
	{
		curl_easy_setopt(
			curl, CURLOPT_POSTFIELDS,
			load_fill_word(command->words[BODY], key, filled[BODY], sizeof(filled[BODY])));
		curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, command->words[METHOD]);
	}
	for (int i = HEADERS; i < command->nwords; i++)
		headers = curl_slist_append(
			headers, load_fill_word(command->words[i], key, filled[i], sizeof(filled[i])));
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	load_wait_network();
	code = curl_easy_perform(curl);
	if (code != CURLE_OK)
		load_fail("%s: %s", url, curl_easy_strerror(code));
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200 || total == 0)
		load_fail("%s answered %ld and %zu bytes", url, status, total);
	curl_slist_free_all(headers);
}

const LoadKind load_http = {.name = "http", .connect = connect_http, .run = run_http};
