#!/usr/bin/python3
"""seeds.py MONGODB_URI APP DATABASE: does a MongoDB hold what a seed says of its collections?

Looks by PyMongo at every document's fields and their types, at the kind of _id,
at the indexes and at the files; prints a line for whatever is otherwise, and at the end "looked at N".
A type with a ? may be null; a type in [] is an array's element.
"""

import hashlib
import re
import sys

import gridfs
import pymongo

# collection: (pattern of _id as text with its type, fields, indexes)
FORUM = {
    "replies": (r"str rpl_\w{26}", "threadId:str content:str userId:int? username:str parentReplyId:str? depth:int isDeleted:bool createdAt:datetime updatedAt:datetime",
                ["threadId:1 createdAt:-1", "userId:1", "parentReplyId:1"]),
    "reactions": (r"str rct_\w{26}", "threadId:str userId:int type:str createdAt:datetime", ["threadId:1 type:1", "threadId:1 userId:1 unique"]),
    "wallets": (r"str wal_\w{26}", "userId:int balance:Int64 tokenBalance:Int64 createdAt:datetime updatedAt:datetime", ["userId:1 unique"]),
    "transactions": (r"str txn_\w{26}", "userId:int? walletId:str? type:str amount:Int64 tokenAmount:Int64 description:str? createdAt:datetime", ["userId:1 createdAt:-1"]),
    "chat_sessions": (r"str cht_\w{26}", "userId:int title:str serviceType:str model:str? messageCount:int lastMessageAt:datetime? createdAt:datetime updatedAt:datetime",
                      ["userId:1 createdAt:-1"]),
    "chat_messages": (r"str msg_\w{26}", "sessionId:str role:str content:str tokensUsed:int createdAt:datetime", ["sessionId:1 createdAt:1"]),
    "documents": (r"str doc_\w{26}", "userId:int title:str fileName:str mimeType:str size:int isPublic:bool createdAt:datetime", []),
    "reports": (r"str rpt_\w{26}", "reporterId:int? targetType:str targetId:str reason:str details:str? status:str resolvedBy:int? resolvedAt:datetime? createdAt:datetime", []),
    "user_warnings": (r"str wrn_\w{26}", "userId:int adminId:int? reason:str severity:str createdAt:datetime", []),
    "device_bans": (r"str ban_\w{26}", "fingerprint:str reason:str bannedBy:int? expiresAt:datetime? createdAt:datetime", []),
    "thread_pages": (r"int \d+", "title:str summary:str? category:str author:str createdAt:datetime replyCount:int reactions:dict replies:[dict]", ["replies.userId:1"]),
}
PASALKU = {
    "chat_transcripts": (r"ObjectId [0-9a-f]{24}", "session_id:str user_id:str title:str ai_model:str rating:int? created_at:datetime updated_at:datetime messages:[dict] "
                         "total_messages:int? total_tokens:Int64? avg_confidence_score:Decimal128?", ["session_id:1", "user_id:1 created_at:-1", "messages.content:text"]),
    "document_analyses": (r"ObjectId [0-9a-f]{24}", "document_id:str language:str summary:str clauses:[dict] risk_score:Decimal128? analyzed_at:datetime", ["document_id:1", "summary:text"]),
    "verification_documents": (r"ObjectId [0-9a-f]{24}", "request_id:str file_name:str mime_type:str content:bytes created_at:datetime", ["request_id:1"]),
    "ai_response_cache": (r"str [0-9a-f]{32}", "query:str response:str provider:str hit_count:int created_at:datetime expires_at:datetime", ["expires_at:1 ttl=0"]),
    "knowledge_graph_cache": (r"str [0-9a-f]{32}", "query:str result:dict created_at:datetime expires_at:datetime", ["expires_at:1 ttl=0"]),
    "user_activity_logs": (r"ObjectId [0-9a-f]{24}", "user_id:str action:str resource:str? ip_address:str? metadata:dict created_at:datetime", ["user_id:1 created_at:-1", "created_at:1 ttl=31536000"]),
    "dual_ai_comparisons": (r"ObjectId [0-9a-f]{24}", "session_id:str? query:str ark_response:str groq_response:str similarity:float selected_provider:str created_at:datetime", ["session_id:1"]),
    "feature_flag_cache": (r"str [\w-]+", "enabled:bool rules:dict provider:str expires_at:datetime", ["expires_at:1 ttl=0"]),
}
CHRONOCHAT = {
    "conversations": (r"ObjectId [0-9a-f]{24}", "conversation_id:str user_id:str title:str summary:str? created_at:datetime updated_at:datetime message_count:int total_tokens:int "
                      "metadata:dict tags:[str] is_archived:bool", ["conversation_id:1 unique", "user_id:1", "created_at:1"]),
    "messages": (r"ObjectId [0-9a-f]{24}", "conversation_id:str role:str content:str created_at:datetime model:str? provider:str? tokens:int metadata:dict", ["conversation_id:1", "created_at:1"]),
}
DIGITWIN = {
    "conversations": (r"str [0-9a-f-]{36}", "userId:str userName:str state:str llmProvider:str ttsProvider:str startedAt:datetime endedAt:datetime? totalTurns:int averageLatencyMs:float? "
                      "totalCost:Decimal128 turns:[dict]", ["userId:1 startedAt:1"]),
    "knowledge_documents": (r"str [0-9a-f-]{36}", "userId:str filename:str contentType:str textContent:str? chunkCount:int status:str vectorIds:[str] uploadedAt:datetime",
                            ["userId:1 uploadedAt:1", "status:1"]),
}
AICHAT = {
    "chats": (r"str [0-9a-f-]{36}", "userId:str? username:str? title:str? createdAt:datetime updatedAt:datetime messages:[dict]", ["userId:1"]),
    "files": (r"str [0-9a-f-]{36}", "userId:str? filename:str filePath:str fileSize:Int64 mimeType:str? createdAt:datetime", ["userId:1"]),
}
SEEDS = {"forum": FORUM, "pasalku": PASALKU, "chronochat": CHRONOCHAT, "digitwin": DIGITWIN, "aichat": AICHAT}


def has_type(value, wanted):
    """Whether a value is of a type such as str?, [dict] or Int64."""
    if wanted.endswith("?"):
        return value is None or has_type(value, wanted[:-1])
    if wanted.startswith("["):
        return isinstance(value, list) and all(has_type(element, wanted[1:-1]) for element in value)
    return type(value).__name__ == wanted


def differences(collection, pattern, fields, indexes):
    wanted = dict(field.rsplit(":", 1) for field in fields.split())
    count = 0
    for document in collection.find():
        count += 1
        identity = document.pop("_id")
        if not re.fullmatch(pattern, "%s %s" % (type(identity).__name__, identity)):
            yield "_id %r" % identity
        if list(document) != list(wanted):
            yield "%s: fields %s instead of %s" % (identity, list(document), list(wanted))
        for name, kind in wanted.items():
            if not has_type(document.get(name), kind):
                yield "%s: %s is %r" % (identity, name, document.get(name))
    if count == 0:
        yield "no documents"
    there = set()
    for name, index in collection.index_information().items():
        keys = list(dict(index["weights"]).items()) if "weights" in index else index["key"]
        keys = ["%s:%s" % (key, "text" if "weights" in index else kind) for key, kind in keys]
        there.add(" ".join(keys + (["unique"] if index.get("unique") else []) +
                           (["ttl=%d" % index["expireAfterSeconds"]] if "expireAfterSeconds" in index else [])))
    for index in indexes:
        if index not in there:
            yield "no index %s among %s" % (index, sorted(there))
    print("looked at %s: %d documents, %d indexes" % (collection.name, count, len(indexes)))


def files(bucket):
    """Whether each file has the bytes whose hash it was given."""
    count = 0
    for file in bucket.find():
        count += 1
        if hashlib.sha256(file.read()).hexdigest() != file.metadata["sha256"]:
            yield "%s: other bytes than were put" % file.filename
    if count != 18:
        yield "%d files" % count
    print("looked at %d files" % count)


def main():
    uri, app, database = sys.argv[1:4]
    seed = SEEDS[app]
    documents = pymongo.MongoClient(uri, serverSelectionTimeoutMS=60000)[database]
    missing = set(seed) - set(documents.list_collection_names())
    for name in sorted(missing):
        print("wrong: %s: no such collection" % name)
    for name, (pattern, fields, indexes) in seed.items():
        if name not in missing:
            for number, what in enumerate(differences(documents[name], pattern, fields, indexes)):
                if number < 5:
                    print("wrong: %s: %s" % (name, what))


    if app == "pasalku":
        for what in files(gridfs.GridFS(documents, "documents")):
            print("wrong: " + what)


if __name__ == "__main__":
    main()
