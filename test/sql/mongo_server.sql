-- Options of mongodb_fdw's servers and user mappings: what is taken, what is refused, and by whom.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE mongo_server_admin IN ROLE plinth_admin;
CREATE ROLE mongo_server_other;
GRANT CREATE ON SCHEMA public TO mongo_server_admin;

CREATE SERVER mongo_server FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost:27017/', database 'app');
CREATE SERVER mongo_server_full FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (
    uri 'mongodb://a.example:27017,b.example,[::1]:27018/app?replicaSet=r&w=majority&retryWrites=true&appName=forum&authSource=admin&compressors=zlib&tls=true',
    database 'app', tls 'true', tls_ca_file '/etc/ssl/ca.pem', tls_certificate_key_file '/etc/ssl/me.pem', tls_allow_invalid_hostnames 'true',
    auth_mechanism 'SCRAM-SHA-256', auth_source 'admin', replica_set 'r', app_name 'forum');
CREATE SERVER mongo_server_srv FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb+srv://cluster.example.com/?retryWrites=true&w=majority', database 'app');
CREATE SERVER mongo_server_socket FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://%2Ftmp%2Fmongodb-27017.sock', database 'app');

-- Required, unknown, wrong.
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw;
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/', database 'app', password 'secret');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/', database 'a.b');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/', database '');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/', database 'app', tls 'perhaps');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/', database 'app', auth_mechanism 'GSSAPI');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/', database 'app', tls_ca_file 'ca.pem');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/', database 'app', app_name '');
ALTER SERVER mongo_server OPTIONS (DROP uri);
ALTER FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (ADD uri 'mongodb://localhost/');

-- Credentials in a uri: refused wherever they hide, and never repeated.
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://me:s3cret@localhost/', database 'app');
\set VERBOSITY terse
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://me@localhost/', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://me:s3/cret@localhost/', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb+srv://me:s3cret@cluster.example.com/', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/?authMechanismProperties=AWS_SESSION_TOKEN:s3cret', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/?tlsCertificateKeyFilePassword=s3cret', database 'app');

-- Options of the uri that would read files, or undo promises about time and write concern.
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/?tlsCAFile=/etc/passwd', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/?socketTimeoutMS=0', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/?w=0', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/?tls=maybe', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/?authMechanism=MONGODB-AWS', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/?appName', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'http://localhost/', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://local host/', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri E'mongodb://localhost/\n', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://a:1:2/', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://a:99999/', database 'app');
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb+srv://a.example.com:27017/', database 'app');
\set VERBOSITY default

-- User mappings.
CREATE USER MAPPING FOR CURRENT_USER SERVER mongo_server OPTIONS (username 'me', password 's3cret');
ALTER USER MAPPING FOR CURRENT_USER SERVER mongo_server OPTIONS (DROP password, ADD password_file '/run/secrets/mongo');
ALTER USER MAPPING FOR CURRENT_USER SERVER mongo_server OPTIONS (ADD password 's3cret');
CREATE USER MAPPING FOR PUBLIC SERVER mongo_server OPTIONS (username '');
CREATE USER MAPPING FOR PUBLIC SERVER mongo_server OPTIONS (usr 'me');

-- Who may do what.
SET ROLE mongo_server_other;
CREATE SERVER bad FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/', database 'app');
RESET ROLE;
SET ROLE mongo_server_admin;
CREATE SERVER mongo_server_theirs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://localhost/', database 'app');
CREATE USER MAPPING FOR CURRENT_USER SERVER mongo_server_theirs OPTIONS (username 'me', password 's3cret');
ALTER USER MAPPING FOR CURRENT_USER SERVER mongo_server_theirs OPTIONS (DROP password, ADD password_file '/etc/passwd');
ALTER SERVER mongo_server_theirs OPTIONS (ADD tls_ca_file '/etc/passwd');
ALTER SERVER mongo_server_theirs OPTIONS (ADD tls_certificate_key_file '/etc/passwd');
ALTER SERVER mongo_server_theirs OPTIONS (ADD tls_allow_invalid_certificates 'true');
ALTER SERVER mongo_server_theirs OPTIONS (ADD tls_allow_invalid_certificates 'false');
RESET ROLE;
GRANT pg_read_server_files TO mongo_server_admin;
SET ROLE mongo_server_admin;
ALTER SERVER mongo_server_theirs OPTIONS (ADD tls_ca_file '/etc/ssl/ca.pem');
RESET ROLE;
REVOKE pg_read_server_files FROM mongo_server_admin;
-- A server that reads a file cannot be pointed elsewhere without that right.
SET ROLE mongo_server_admin;
ALTER SERVER mongo_server_theirs OPTIONS (SET uri 'mongodb://elsewhere/');
RESET ROLE;

DROP SERVER mongo_server, mongo_server_full, mongo_server_srv, mongo_server_socket, mongo_server_theirs CASCADE;
REVOKE CREATE ON SCHEMA public FROM mongo_server_admin;
DROP ROLE mongo_server_admin, mongo_server_other;
