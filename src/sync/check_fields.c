/*
 * check_fields.c
 *		What becomes of the columns: which go into the document, under which
 *		names, as which types, and how the key becomes _id.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "sync/check.h"
#include "sync/sync_int.h"

#define MICROS_SUFFIX "Micros"

/* One column on its way into the document. */
typedef struct Field
{
	Form_pg_attribute attribute;
	char *name; /* in the document */
	char *cast; /* or NULL */
	bool sent;  /* goes into the document */
	bool key;   /* goes into _id */
} Field;

/* The string under key in a JSON object; NULL when there is none. */
static char *
object_string(Jsonb *object, const char *key)
{
	JsonbValue value;

	if (object == NULL ||
		getKeyJsonValueFromContainer(&object->root, key, strlen(key), &value) == NULL)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

/* The name of a column in the document, or within a composite _id. */
static char *
field_name(const PlinthSyncFields *spec, const char *column)
{
	char *name = object_string(spec->fields, column);

	if (name == NULL)
		name = spec->camel ? plinth_sync_camel_case(column) : pstrdup(column);
	return name;
}

/* An object whose values are strings. */
static void
check_strings(Jsonb *object, const char *argument)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue value;

	if (object == NULL)
		return;
	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s must be a JSON object", argument),
						errhint("Write it as '{\"column\": \"value\"}'.")));
	it = JsonbIteratorInit(&object->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
		if (token == WJB_VALUE && value.type != jbvString)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("values of %s must be strings", argument),
							errhint("Write it as '{\"column\": \"value\"}'.")));
}

/* Every key of the object is a column in question. */
static void
check_object(const char *of, Jsonb *object, const char *argument, bool sent_only,
			 const Field *fields, int nfields)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue value;

	if (object == NULL)
		return;
	it = JsonbIteratorInit(&object->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		bool found = false;

		if (token != WJB_KEY)
			continue;
		for (int i = 0; i < nfields && !found; i++)
		{
			const char *column = NameStr(fields[i].attribute->attname);

			found = (fields[i].sent || !sent_only) && strlen(column) == value.val.string.len &&
					memcmp(column, value.val.string.val, value.val.string.len) == 0;
		}
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("%s names \"%.*s\", which is no column that is sent", argument,
							value.val.string.len, value.val.string.val),
					 errhint("Name columns of %s, and of the argument columns where it is given.",
							 of)));
	}
}

static bool
is_key(const PlinthSyncKeyColumns *key, AttrNumber attnum)
{
	for (int i = 0; i < key->nkeys; i++)
		if (key->attnums[i] == attnum)
			return true;
	return false;
}

static Field *
add_field(Field *fields, int *nfields, Form_pg_attribute attribute)
{
	fields[*nfields].attribute = attribute;
	return &fields[(*nfields)++];
}

static Form_pg_attribute
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0)
			return attribute;
	}
	return NULL;
}

/* The columns that columns names. */
static void
list_named(TupleDesc desc, const char *of, ArrayType *columns, Field *fields, int *nfields)
{
	Datum *names;
	bool *nulls;
	int nnames;

	deconstruct_array(columns, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &names, &nulls, &nnames);
	for (int i = 0; i < nnames; i++)
	{
		Form_pg_attribute attribute;

		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("columns must not contain NULL"),
							errhint("Name the columns to send, or pass NULL for every column.")));
		attribute = find_column(desc, NameStr(*DatumGetName(names[i])));
		if (attribute == NULL)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
							errmsg("column \"%s\" of %s does not exist",
								   NameStr(*DatumGetName(names[i])), of),
							errhint("Name columns of %s; system columns cannot be sent.", of)));
		for (int j = 0; j < *nfields; j++)
			if (fields[j].attribute == attribute)
				ereport(ERROR, (errcode(ERRCODE_DUPLICATE_COLUMN),
								errmsg("column \"%s\" is named more than once",
									   NameStr(attribute->attname)),
								errhint("Name each column once in columns.")));
		add_field(fields, nfields, attribute)->sent = true;
	}
}

/*
 * The columns that are sent, and those of the key that are not: the key is in
 * _id, and in a field of its own only where columns or fields name it.
 */
static Field *
list_fields(TupleDesc desc, const char *of, const PlinthSyncKeyColumns *key,
			const PlinthSyncFields *spec, int *nfields)
{
	Field *fields = palloc0(sizeof(Field) * desc->natts);
	int nnamed;

	*nfields = 0;
	if (spec->columns != NULL)
		list_named(desc, of, spec->columns, fields, nfields);
	nnamed = *nfields;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		bool in_key = is_key(key, attribute->attnum);
		Field *field = NULL;

		for (int j = 0; j < nnamed; j++)
			if (fields[j].attribute == attribute)
				field = &fields[j];
		if (field == NULL && !attribute->attisdropped && (in_key || spec->columns == NULL))
		{
			field = add_field(fields, nfields, attribute);
			field->sent =
				!in_key || object_string(spec->fields, NameStr(attribute->attname)) != NULL;
		}
		if (field != NULL)
			field->key = in_key;
	}
	return fields;
}

/* A name that MongoDB stores and that can be asked for by a plain path. */
static void
check_field_name(const Field *field)
{
	const char *column = NameStr(field->attribute->attname);
	const char *reason = NULL;

	if (field->name[0] == '\0')
		reason = "is empty";
	else if (field->name[0] == '$')
		reason = "starts with \"$\"";
	else if (strchr(field->name, '.') != NULL)
		reason = "contains \".\"";
	else if (strcmp(field->name, "_id") == 0 && field->sent)
		reason = "is the key's";
	if (reason != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("field name \"%s\" of column \"%s\" %s", field->name, column, reason),
				 field->key
					 ? errhint("The key becomes _id by itself: do not name it in columns or "
							   "fields, or give it another name in fields.")
					 : errhint("Give the column another name in the argument fields, such as "
							   "'{\"%s\": \"other\"}', or leave it out by the argument "
							   "columns.",
							   column)));
}

static bool
is_micros(const Field *field)
{
	return field->cast != NULL && strcmp(field->cast, "micros") == 0;
}

static void
check_distinct(const Field *a, const Field *b)
{
	const char *name = NULL;

	if (strcmp(a->name, b->name) == 0 && ((a->sent && b->sent) || (a->key && b->key)))
		name = a->name;
	else if (!a->sent || !b->sent)
		return;
	else if (is_micros(a) && strcmp(psprintf("%s" MICROS_SUFFIX, a->name), b->name) == 0)
		name = b->name;
	else if (is_micros(b) && strcmp(psprintf("%s" MICROS_SUFFIX, b->name), a->name) == 0)
		name = a->name;
	if (name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_COLUMN),
				 errmsg("columns \"%s\" and \"%s\" both make field \"%s\"",
						NameStr(a->attribute->attname), NameStr(b->attribute->attname), name),
				 errhint("Give one of them another name in the argument fields.")));
}

/* Can the key become _id as asked? */
static void
check_id(TupleDesc desc, const PlinthSyncKeyColumns *key, const PlinthSyncFields *spec)
{
	const char *names[INDEX_MAX_KEYS];
	Oid types[INDEX_MAX_KEYS];
	int32 typmods[INDEX_MAX_KEYS];

	for (int i = 0; i < key->nkeys; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, key->attnums[i] - 1);

		names[i] = field_name(spec, NameStr(attribute->attname));
		types[i] = attribute->atttypid;
		typmods[i] = attribute->atttypmod;
	}
	(void) plinth_mongo_id_spec(key->nkeys, names, types, typmods, spec->id_cast, spec->id_prefix);
}

void
plinth_sync_check_fields(TupleDesc desc, const char *of, const PlinthSyncKeyColumns *key,
						 const PlinthSyncFields *spec)
{
	int nfields;
	Field *fields;

	check_strings(spec->fields, "fields");
	check_strings(spec->casts, "casts");
	fields = list_fields(desc, of, key, spec, &nfields);
	check_object(of, spec->fields, "fields", false, fields, nfields);
	check_object(of, spec->casts, "casts", true, fields, nfields);
	for (int i = 0; i < nfields; i++)
	{
		Field *field = &fields[i];
		const char *column = NameStr(field->attribute->attname);

		field->name = field_name(spec, column);
		field->cast = object_string(spec->casts, column);
		check_field_name(field);
		if (field->sent)
			(void) plinth_mongo_field(field->name, field->attribute->atttypid,
									  field->attribute->atttypmod, field->cast);
		for (int j = 0; j < i; j++)
			check_distinct(&fields[j], field);
	}
	check_id(desc, key, spec);
}
