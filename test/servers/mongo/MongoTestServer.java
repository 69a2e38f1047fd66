import de.bwaldvogel.mongo.MongoBackend;
import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.bson.Document;
import io.netty.channel.Channel;
import java.io.FileInputStream;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.Locale;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Supplier;

/**
 * The MongoDB-compatible server that tests, demo and benches run against when there is no other.
 *
 * <p>Options: --host A, --port N (0: a free one), --h2 FILE (keeps its data there; default: in memory), --tls-cert PEM
 * and --tls-key PEM (PKCS #8), --stdin (ends when standard input does, so that it never outlives its starter). Prints
 * "port N" when it listens.
 */
public final class MongoTestServer {
    public static void main(String[] args) throws Exception {
        String host = "127.0.0.1";
        int port = 0;
        String h2 = null;
        String cert = null;
        String key = null;
        boolean stdin = false;

        for (int i = 0; i < args.length; i++) {
            switch (args[i]) {
                case "--host" -> host = args[++i];
                case "--port" -> port = Integer.parseInt(args[++i]);
                case "--h2" -> h2 = args[++i];
                case "--tls-cert" -> cert = args[++i];
                case "--tls-key" -> key = args[++i];
                case "--stdin" -> stdin = true;
                default -> throw new IllegalArgumentException("unknown option " + args[i]);
            }
        }

        MongoBackend backend = h2 == null ? memory() : h2(h2);
        MongoServer server = new MongoServer(backend);
        if (cert != null) {
            server.enableSsl(readKey(key), null, readCertificate(cert));
        }
        server.bind(host, port);
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        System.out.println("port " + server.getLocalAddress().getPort());
        System.out.flush();

        if (stdin) {
            while (System.in.read() >= 0) {
                continue;
            }
            System.exit(0);
        }
        Thread.currentThread().join();
    }

    private static MongoBackend memory() {
        Turns turns = new Turns();
        return new MemoryBackend() {
            @Override
            public Document handleCommand(Channel channel, String database, String command, Document query) {
                return turns.take(database, command, query, () -> super.handleCommand(channel, database, command, query));
            }
        };
    }

    private static MongoBackend h2(String file) {
        Turns turns = new Turns();
        return new H2Backend(file) {
            @Override
            public Document handleCommand(Channel channel, String database, String command, Document query) {
                return turns.take(database, command, query, () -> super.handleCommand(channel, database, command, query));
            }
        };
    }

    /**
     * Definitions by themselves, everything else side by side.
     *
     * <p>The server gives a new collection its index of _id a moment after others can write to it, and fills an index
     * while documents come: what is written meanwhile stands in no index, and no write to its _id finds it again.
     */
    private static final class Turns {
        private static final Set<String> DEFINITIONS =
            Set.of("create", "createindexes", "drop", "dropdatabase", "dropindexes", "deleteindexes", "renamecollection", "collmod");
        private static final Set<String> WRITES = Set.of("insert", "update", "delete", "findandmodify");

        private final ReadWriteLock lock = new ReentrantReadWriteLock();
        private final Set<String> written = ConcurrentHashMap.newKeySet();

        Document take(String database, String command, Document query, Supplier<Document> work) {
            String name = command.toLowerCase(Locale.ROOT);
            String collection = database + "." + query.get(command);
            boolean defines = DEFINITIONS.contains(name);
            boolean creates = WRITES.contains(name) && !written.contains(collection);
            Lock turn = defines || creates ? lock.writeLock() : lock.readLock();

            turn.lock();
            try {
                Document result = work.get();
                if (defines) {
                    written.clear();
                } else if (creates) {
                    written.add(collection);
                }
                return result;
            } finally {
                turn.unlock();
            }
        }
    }

    private static X509Certificate readCertificate(String file) throws Exception {
        try (InputStream in = new FileInputStream(file)) {
            return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
    }

    private static PrivateKey readKey(String file) throws Exception {
        String pem = Files.readString(Path.of(file)).replaceAll("-----[A-Z ]+-----", "").replaceAll("\\s", "");
        byte[] der = Base64.getDecoder().decode(pem);
        return KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(der));
    }
}
