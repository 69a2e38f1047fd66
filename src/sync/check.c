/*
 * check.c
 *		What can be synced: kind of table, and the key.
 *
 * A table can be copied only when the WAL of each UPDATE and DELETE tells
 * which row it was.  So the key that becomes _id must be covered by the
 * replica identity of the table, and of each of its partitions: what counts
 * is the partition's own, which ALTER TABLE on the parent does not change.
 *
 * The caller holds a lock on the table that keeps DDL away; partitions are
 * locked here until the end of the transaction.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "sync/check.h"
#include "sync/sync_int.h"

char *
plinth_sync_relation_name(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

/* The hint for a kind of relation that has no rows of its own to copy. */
static void
refuse_kind(Relation rel)
{
	const char *hint;

	switch (rel->rd_rel->relkind)
	{
		case RELKIND_VIEW:
		case RELKIND_MATVIEW:
			hint = "Sync the tables that it reads.";
			break;
		case RELKIND_FOREIGN_TABLE:
			hint = "Sync the table where its rows are, or copy them into an ordinary table.";
			break;
		default:
			hint = "Name a table.";
	}
	ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
					errmsg("cannot sync \"%s\"", RelationGetRelationName(rel)),
					errdetail("Only ordinary and partitioned tables can be synced."),
					errhint("%s", hint)));
}

/* Are the rows of this table itself in the WAL? */
static void
check_persistence(Relation rel)
{
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("cannot sync temporary table \"%s\"", RelationGetRelationName(rel)),
						errhint("Use a permanent table.")));
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("cannot sync unlogged table \"%s\"", RelationGetRelationName(rel)),
						errdetail("Changes to unlogged tables are not in the write-ahead log."),
						errhint("ALTER TABLE %s SET LOGGED;", plinth_sync_relation_name(rel))));
}

void
plinth_sync_check_relation(Relation rel, Oid owner)
{
	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		refuse_kind(rel);
	if (IsSystemRelation(rel) || RelationGetRelid(rel) < FirstNormalObjectId ||
		RelationGetNamespace(rel) == plinth_base_schema_oid())
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("cannot sync system table \"%s\"", RelationGetRelationName(rel)),
						errhint("Name a table of an application.")));
	check_persistence(rel);
	if (rel->rd_rel->relkind == RELKIND_RELATION &&
		find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL)
		ereport(
			ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot sync table \"%s\", which has inheritance children",
					RelationGetRelationName(rel)),
			 errdetail("No key is unique over a table and its inheritance children."),
			 errhint("Use a partitioned table, or sync each child to a collection of its own.")));
	if (rel->rd_rel->relrowsecurity && rel->rd_rel->relforcerowsecurity &&
		!has_bypassrls_privilege(owner))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cannot sync table \"%s\", whose row-level security is forced",
							   RelationGetRelationName(rel)),
						errdetail("Rows are read as the table's owner, from whom policies must not "
								  "hide any."),
						errhint("ALTER TABLE %s NO FORCE ROW LEVEL SECURITY;",
								plinth_sync_relation_name(rel))));
}

/* A key that can be _id: unique in whole, over plain columns that are never NULL. */
static bool
index_is_key(Relation rel, Relation index)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indisvalid || !form->indislive ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		AttrNumber attnum = form->indkey.values[i];

		if (attnum <= 0 || !TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attnotnull)
			return false;
	}
	return true;
}

static void
index_columns(Relation index, PlinthSyncKeyColumns *key)
{
	key->nkeys = index->rd_index->indnkeyatts;
	for (int i = 0; i < key->nkeys; i++)
		key->attnums[i] = index->rd_index->indkey.values[i];
}

/* What the indexes of a table offer as a key. */
typedef struct KeyChoice
{
	bool has_primary;
	bool primary_deferrable;
	bool has_identity;
	bool has_unique;
	PlinthSyncKeyColumns primary;
	PlinthSyncKeyColumns identity; /* REPLICA IDENTITY USING INDEX */
	PlinthSyncKeyColumns unique;   /* of other unique keys the oldest */
} KeyChoice;

static void
find_keys(Relation rel, KeyChoice *choice)
{
	List *indexes = RelationGetIndexList(rel);
	ListCell *lc;

	memset(choice, 0, sizeof(*choice));
	foreach (lc, indexes)
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index_is_key(rel, index))
		{
			if (index->rd_index->indisprimary)
			{
				choice->has_primary = true;
				choice->primary_deferrable = !index->rd_index->indimmediate;
				index_columns(index, &choice->primary);
			}
			else if (!choice->has_unique)
			{
				choice->has_unique = true;
				index_columns(index, &choice->unique);
			}
			if (index->rd_index->indisreplident && index->rd_index->indimmediate)
			{
				choice->has_identity = true;
				index_columns(index, &choice->identity);
			}
		}
		index_close(index, NoLock);
	}
	list_free(indexes);
}

/* DEFAULT: the old tuple holds the primary key, unless that is deferrable. */
static const PlinthSyncKeyColumns *
key_by_default(Relation rel, const KeyChoice *choice)
{
	const char *name = plinth_sync_relation_name(rel);

	if (!choice->has_primary)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot sync table \"%s\", which has no primary key",
						RelationGetRelationName(rel)),
				 errhint("Add a primary key, or name a unique index on columns that are NOT NULL: "
						 "ALTER TABLE %s REPLICA IDENTITY USING INDEX ...;",
						 name)));
	if (choice->primary_deferrable)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot sync table \"%s\", whose primary key is deferrable",
						RelationGetRelationName(rel)),
				 errdetail("UPDATE and DELETE write no key to the write-ahead log then."),
				 errhint("Make the primary key NOT DEFERRABLE, or ALTER TABLE %s REPLICA IDENTITY "
						 "FULL;",
						 name)));
	return &choice->primary;
}

/* The key of the table itself. */
static const PlinthSyncKeyColumns *
choose_key(Relation rel, const KeyChoice *choice)
{
	const char *name = plinth_sync_relation_name(rel);

	switch (rel->rd_rel->relreplident)
	{
		case REPLICA_IDENTITY_NOTHING:
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("cannot sync table \"%s\", whose replica identity is NOTHING",
								   RelationGetRelationName(rel)),
							errhint("ALTER TABLE %s REPLICA IDENTITY %s;", name,
									choice->has_primary && !choice->primary_deferrable ? "DEFAULT"
																					   : "FULL")));
			break;
		case REPLICA_IDENTITY_INDEX:
			if (choice->has_identity)
				return &choice->identity;
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("cannot sync table \"%s\", whose replica identity index is gone",
								   RelationGetRelationName(rel)),
							errhint("ALTER TABLE %s REPLICA IDENTITY DEFAULT;", name)));
			break;
		case REPLICA_IDENTITY_FULL:
			if (choice->has_primary)
				return &choice->primary;
			if (choice->has_unique)
				return &choice->unique;
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot sync table \"%s\", which has no unique key",
							RelationGetRelationName(rel)),
					 errhint("Add a primary key, or a unique index without WHERE on columns that "
							 "are NOT NULL.")));
			break;
	}
	return key_by_default(rel, choice);
}

/* The columns that the old tuple of a partition holds; NULL for all. */
static const PlinthSyncKeyColumns *
leaf_identity(Relation leaf, const KeyChoice *choice)
{
	static const PlinthSyncKeyColumns none = {0};

	switch (leaf->rd_rel->relreplident)
	{
		case REPLICA_IDENTITY_FULL:
			return NULL;
		case REPLICA_IDENTITY_INDEX:
			return choice->has_identity ? &choice->identity : &none;
		case REPLICA_IDENTITY_DEFAULT:
			return choice->has_primary && !choice->primary_deferrable ? &choice->primary : &none;
		default:
			return &none;
	}
}

static void
refuse_leaf(Relation root, Relation leaf)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot sync partitioned table \"%s\"", RelationGetRelationName(root)),
			 errdetail("Partition \"%s\" is not an ordinary table.", RelationGetRelationName(leaf)),
			 errhint("Detach the partition, or sync the other partitions one by one.")));
}

/* The first of these columns of root that a leaf's replica identity does not hold, or NULL. */
static const char *
missing_column(Relation root, const AttrNumber *columns, int ncolumns, Relation leaf,
			   const PlinthSyncKeyColumns *identity)
{
	for (int i = 0; identity != NULL && i < ncolumns; i++)
	{
		const char *column =
			NameStr(TupleDescAttr(RelationGetDescr(root), columns[i] - 1)->attname);
		AttrNumber attnum = get_attnum(RelationGetRelid(leaf), column);
		bool found = false;

		for (int j = 0; j < identity->nkeys; j++)
			found |= identity->attnums[j] == attnum;
		if (!found)
			return column;
	}
	return NULL;
}

/* Does the partition's replica identity hold every key column of its root? */
static void
check_leaf(Relation root, const PlinthSyncKeyColumns *key, Relation leaf)
{
	KeyChoice choice;
	const PlinthSyncKeyColumns *identity;
	const char *column;

	if (leaf->rd_rel->relkind != RELKIND_RELATION)
		refuse_leaf(root, leaf);
	check_persistence(leaf);
	find_keys(leaf, &choice);
	identity = leaf_identity(leaf, &choice);
	column = missing_column(root, key->attnums, key->nkeys, leaf, identity);
	if (column != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot sync partitioned table \"%s\"", RelationGetRelationName(root)),
				 errdetail("The replica identity of partition \"%s\" does not cover key "
						   "column \"%s\".",
						   RelationGetRelationName(leaf), column),
				 errhint("ALTER TABLE %s REPLICA IDENTITY %s;", plinth_sync_relation_name(leaf),
						 choice.has_primary && !choice.primary_deferrable &&
								 leaf->rd_rel->relreplident != REPLICA_IDENTITY_DEFAULT
							 ? "DEFAULT"
							 : "FULL")));
}

/* A table or partition whose old rows must tell these columns of root. */
static void
check_old(Relation root, const AttrNumber *columns, int ncolumns, Relation leaf)
{
	KeyChoice choice;
	const char *column;

	if (leaf->rd_rel->relkind != RELKIND_RELATION)
		refuse_leaf(root, leaf);
	check_persistence(leaf);
	find_keys(leaf, &choice);
	column = missing_column(root, columns, ncolumns, leaf, leaf_identity(leaf, &choice));
	if (column != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("old rows of table \"%s\" do not tell column \"%s\"",
					RelationGetRelationName(leaf), column),
			 errdetail("A row that is deleted or changed says by it which documents it was in, "
					   "and its replica identity does not cover it."),
			 errhint("ALTER TABLE %s REPLICA IDENTITY FULL;", plinth_sync_relation_name(leaf))));
}

void
plinth_sync_check_old(Relation rel, const AttrNumber *columns, int ncolumns)
{
	List *members;
	ListCell *lc;

	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
	{
		check_old(rel, columns, ncolumns, rel);
		return;
	}
	members = find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL);
	foreach (lc, members)
	{
		Relation member = table_open(lfirst_oid(lc), NoLock);

		if (member->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
			check_old(rel, columns, ncolumns, member);
		table_close(member, NoLock);
	}
	list_free(members);
}

/* Tables are read in the order of their keys, by the types' own operators. */
static void
check_key_types(Relation rel, const PlinthSyncKeyColumns *key)
{
	if (key->nkeys > PLINTH_SYNC_MAX_KEYS)
		ereport(
			ERROR,
			(errcode(ERRCODE_TOO_MANY_COLUMNS),
			 errmsg("cannot sync table \"%s\", whose key has more than %d columns",
					RelationGetRelationName(rel), PLINTH_SYNC_MAX_KEYS),
			 errhint("Give the table a shorter key, and name it: ALTER TABLE %s REPLICA IDENTITY "
					 "USING INDEX ...;",
					 plinth_sync_relation_name(rel))));
	for (int i = 0; i < key->nkeys; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), key->attnums[i] - 1);

		if (!OidIsValid(
				lookup_type_cache(attribute->atttypid, TYPECACHE_BTREE_OPFAMILY)->btree_opf))
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
							errmsg("cannot sync table \"%s\", whose key column \"%s\" has a type "
								   "without an order",
								   RelationGetRelationName(rel), NameStr(attribute->attname)),
							errhint("Use a key of a type with a default btree operator class.")));
	}
}

void
plinth_sync_check_key(Relation rel, PlinthSyncKeyColumns *key)
{
	KeyChoice choice;
	List *members;
	ListCell *lc;

	find_keys(rel, &choice);
	*key = *choose_key(rel, &choice);
	check_key_types(rel, key);
	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return;

	members = find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL);
	foreach (lc, members)
	{
		Relation member = table_open(lfirst_oid(lc), NoLock);

		if (member->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
			check_leaf(rel, key, member);
		table_close(member, NoLock);
	}
	list_free(members);
}
