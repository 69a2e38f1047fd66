import com.mongodb.MongoException;
import com.mongodb.client.FindIterable;
import com.mongodb.client.MongoClient;
import com.mongodb.client.MongoClients;
import com.mongodb.client.MongoDatabase;
import com.mongodb.client.gridfs.GridFSBucket;
import com.mongodb.client.gridfs.GridFSBuckets;
import com.mongodb.client.gridfs.model.GridFSFile;
import com.mongodb.client.model.Projections;
import java.io.ByteArrayOutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.bson.BsonArray;
import org.bson.BsonDocument;
import org.bson.BsonInt32;
import org.bson.BsonInt64;
import org.bson.BsonString;
import org.bson.BsonValue;

/** MongoCompare DIR URI DATABASE: as ../compare.py, by MongoDB's own driver for Java. */
public final class MongoCompare {
    private final Path directory;
    private final MongoDatabase db;
    private final BsonArray result = new BsonArray();

    private MongoCompare(Path directory, MongoDatabase db) {
        this.directory = directory;
        this.db = db;
    }

    public static void main(String[] args) throws Exception {
        try (MongoClient client = MongoClients.create(args[1])) {
            MongoCompare compare = new MongoCompare(Path.of(args[0]), client.getDatabase(args[2]));
            BsonDocument spec = BsonDocument.parse(Files.readString(Path.of(args[0], "spec.json")));
            for (Map.Entry<String, BsonValue> entry : spec.getDocument("collections").entrySet()) {
                compare.collection(entry.getKey(), entry.getValue());
            }
            for (BsonValue name : spec.getArray("buckets")) {
                compare.bucket(name.asString().getValue());
            }
            String json = new BsonDocument("result", compare.result).toJson();
            System.out.println(json.substring(json.indexOf('['), json.lastIndexOf(']') + 1));
        }
    }

    private List<String> lines(String name) throws Exception {
        List<String> lines = new ArrayList<>();
        for (String line : Files.readString(directory.resolve(name)).split("\n")) {
            if (!line.isBlank()) {
                lines.add(line);
            }
        }
        return lines;
    }

    private static BsonValue byValue(BsonValue value) {
        if (value.isInt32()) {
            return new BsonInt64(value.asInt32().getValue());
        }
        if (value.isDocument()) {
            BsonDocument copy = new BsonDocument();
            value.asDocument().forEach((k, v) -> copy.put(k, byValue(v)));
            return copy;
        }
        return value;
    }

    private static BsonDocument keyed(BsonDocument document) {
        document.put("_id", byValue(document.get("_id")));
        return document;
    }

    private void told(String name, int documents, List<String> differences) {
        BsonArray some = new BsonArray();
        for (String difference : differences.subList(0, Math.min(10, differences.size()))) {
            some.add(new BsonString(difference.substring(0, Math.min(500, difference.length()))));
        }
        result.add(new BsonDocument("name", new BsonString(name)).append("documents", new BsonInt32(documents))
                .append("differences", some));
    }

    private void collection(String name, BsonValue fields) throws Exception {
        List<String> differences = new ArrayList<>();
        Map<BsonValue, BsonDocument> want = new HashMap<>();
        int documents = 0;

        for (String line : lines(name)) {
            BsonDocument row = keyed(BsonDocument.parse(line));
            if (want.put(row.get("_id"), row) != null) {
                differences.add("two rows with the _id " + row.get("_id"));
            }
        }
        FindIterable<BsonDocument> found = db.getCollection(name, BsonDocument.class).find();
        if (fields.isArray()) {
            List<String> names = new ArrayList<>();
            fields.asArray().forEach(field -> names.add(field.asString().getValue()));
            found = found.projection(Projections.include(names));
        }
        for (BsonDocument document : found) {
            documents++;
            keyed(document);
            BsonDocument expected = want.remove(document.get("_id"));
            if (expected == null) {
                differences.add("extra: " + document.toJson());
            } else if (!expected.equals(document)) {
                differences.add("different: " + expected.toJson() + " in MongoDB: " + document.toJson());
            }
        }
        want.values().forEach(row -> differences.add("missing: " + row.toJson()));
        told(name, documents, differences);
    }

    private void bucket(String name) throws Exception {
        List<String> differences = new ArrayList<>();
        Map<String, String> want = new HashMap<>();
        GridFSBucket files = GridFSBuckets.create(db, name);
        int documents = 0;

        for (String line : lines(name + ".files.list")) {
            BsonDocument row = BsonDocument.parse(line);
            String filename = row.getString("filename").getValue();
            want.put(filename, row.getString("_id").getValue());
            ByteArrayOutputStream data = new ByteArrayOutputStream();
            String problem = "";
            try {
                files.downloadToStream(filename, data);
            } catch (MongoException error) {
                problem = error.toString();
            }
            String hash = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data.toByteArray()));
            if (!problem.isEmpty() || data.size() != row.getNumber("length").longValue()
                    || !hash.equals(row.getString("sha256").getValue())) {
                differences.add("different: " + line + " in MongoDB: " + data.size() + " " + hash + " " + problem);
            }
        }
        for (GridFSFile file : files.find()) {
            documents++;
            if (!file.getObjectId().toHexString().equals(want.remove(file.getFilename()))) {
                differences.add("extra: " + file.getFilename() + " " + file.getObjectId().toHexString());
            }
        }
        want.keySet().forEach(filename -> differences.add("missing: " + filename));
        told(name, documents, differences);
    }
}
