import de.bwaldvogel.mongo.MongoBackend;
import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
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

        MongoBackend backend = h2 == null ? new MemoryBackend() : new H2Backend(h2);
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
