/*
 * load_pg.c
 *		Steps of load.c that ask PostgreSQL, by prepared statements: pg CONNINFO
 *		SQL [& SQL]..., which are one transaction.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>

#include "load.h"

/* Numbers the parameters of an SQL by those fields that it names. */
static void
number_parameters(LoadCommand *command)
{
	char *sql = load_copy(command->words[0]);

	for (char *at = sql; (at = strchr(at, '$')) != NULL; at++)
	{
		int field = at[1] - '1';
		int place = 0;

		if (field < 0 || field >= LOAD_MAX_FIELDS)
			continue;
		while (place < command->nparams && command->params[place] != field)
			place++;
		if (place == command->nparams)
			command->params[command->nparams++] = field;
		at[1] = '1' + place;
	}
	command->words[0] = sql;
}

static void
connect_pg(LoadStep *step)
{
	PGconn *pg = PQconnectdb(step->target);

	step->connection = pg;
	if (PQstatus(pg) != CONNECTION_OK)
		load_fail("%s", PQerrorMessage(pg));
	for (int i = 0; i < step->ncommands; i++)
	{
		LoadCommand *command = &step->commands[i];
		PGresult *result;

		number_parameters(command);
		snprintf(command->name, sizeof(command->name), "s%d_%d", step->number, i);
		result = PQprepare(pg, command->name, command->words[0], command->nparams, NULL);
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			load_fail("%s", PQerrorMessage(pg));
		PQclear(result);
	}
	if (step->ncommands > 1 && !PQenterPipelineMode(pg))
		load_fail("%s", PQerrorMessage(pg));
}

static void
check_result(PGconn *pg, const LoadCommand *command, const LoadKey *key, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		load_fail("%s", PQerrorMessage(pg));
	if (status == PGRES_TUPLES_OK && (PQntuples(result) == 0 || PQgetisnull(result, 0, 0)))
		load_fail("nothing came of \"%s\" for %s", command->words[0], key->fields[0]);
	PQclear(result);
}

static void
run_pg(const LoadStep *step, const LoadKey *key)
{
	PGconn *pg = step->connection;

	for (int i = 0; i < step->ncommands; i++)
	{
		const LoadCommand *command = &step->commands[i];
		const char *values[LOAD_MAX_FIELDS];

		for (int j = 0; j < command->nparams; j++)
		{
			if (command->params[j] >= key->nfields)
				load_fail("\"%s\" names no field of a key", command->words[0]);
			values[j] = key->fields[command->params[j]];
		}
		if (!PQsendQueryPrepared(pg, command->name, command->nparams, values, NULL, NULL, 0))
			load_fail("%s", PQerrorMessage(pg));
	}
	if (step->ncommands > 1 && !PQpipelineSync(pg))
		load_fail("%s", PQerrorMessage(pg));
	load_wait_network();
	for (int i = 0; i < step->ncommands; i++)
	{
		check_result(pg, &step->commands[i], key, PQgetResult(pg));
		if (PQgetResult(pg) != NULL)
			load_fail("\"%s\" has two results", step->commands[i].words[0]);
	}
	if (step->ncommands > 1)
	{
		PGresult *result = PQgetResult(pg);

		if (PQresultStatus(result) != PGRES_PIPELINE_SYNC)
			load_fail("%s", PQerrorMessage(pg));
		PQclear(result);
	}
}

const LoadKind load_pg = {.name = "pg", .connect = connect_pg, .run = run_pg};
