-- Passwords: hashes of other systems, what may be one, changing them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE passwords_user IN ROLE authenticated;
CREATE ROLE passwords_admin IN ROLE plinth_admin;
\pset null -
\set SHOW_CONTEXT never
SELECT plinth.uuid_v7() AS start \gset

-- bcrypt: Openwall's own vectors, and PyCA's; only the first 72 bytes count.
SELECT secret, plinth.secret_verify(secret, hash) AS right, plinth.secret_verify('U*', hash) AS wrong FROM (VALUES
    ('U*U', '$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW'),
    ('U*U*', '$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK'),
    ('U*U*U', '$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a'),
    ('', '$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy'),
    ('0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored',
        '$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui'),
    ('pässword', '$2a$04$f6zkFX6O.4LgzBbreUWgiu0/oY/ptuRLreKwr.TZR.2sMyAuaJj4.'),
    ('pässword', '$2b$04$Euw1POSa//ek8fQbDl8/m.JQ6l9l2mPRAGgZuorEUGJiJ55oL/4A.'),
    ('correct horse', '$2y$04$OcHZ1lpK1FMgKineBgAkWOOjY7.BmhMd2PcOwocCofYOqB9pQ/zA6')) v (secret, hash);
-- argon2-cffi's: other lanes, lengths and kinds.
SELECT plinth.secret_verify('correct horse', hash) AS right, plinth.secret_verify('correct house', hash) AS wrong FROM (VALUES
    ('$argon2id$v=19$m=8192,t=2,p=2$hOmIWULfJBE$jcNuaO/OtUzgyk1Sfe0aLQ'),
    ('$argon2i$v=19$m=4096,t=3,p=1$wEo9j1ZOKAA3Ed7m0sAyOg$tTiNSBARjULJv5bawv0dvThNsG9nxMjqqscu2+to8sM'),
    ('$argon2id$v=19$m=1024,t=1,p=4$5Rm69rm2vS+5I6IefCk0kMm4E1q3ezt62DuLvzHOGF8$uz8j1bU2Sri0UFu3IYCi8/aZbgMAIjKNd9MFz0IWGsOBc2qp62rQwciXs/LoPN+/VALBvPsKOeGBIcrQndnx1g')) v (hash);
-- Made by libraries of others, each named with its version.
SELECT made_by, secret, substr(hash, 2, position('$' in substr(hash, 2)) - 1) AS kind, plinth.secret_verify(secret, hash) AS right, plinth.secret_verify(secret || 'x', hash) AS wrong FROM (VALUES
    ('argon2-cffi 25.1.0', 'correct horse', '$argon2id$v=19$m=1024,t=2,p=2$EYeNPibXWxAdwRsYBDTv5Q$mJd7BXIcVBFfl99YOmktHFeAAuM/hv8qhi3+uJKw/6A'),
    ('argon2-cffi 25.1.0', 'pässwörd ✓', '$argon2id$v=19$m=1024,t=2,p=2$XE3RcM0XsHyjij2kqwZRPg$MRkgd+fuEabz0kbVX8Wp56+I+abDBCX9pHTNf3UPhYA'),
    ('argon2-cffi 25.1.0', 'correct horse', '$argon2i$v=19$m=1024,t=2,p=1$1mYZFoXMGxYcM/lzu0e10g$9pvcGPHpQMSqHy5iHLiBPhdkl7J7P8UjfHrk0fjHHxc'),
    ('argon2-cffi 25.1.0', 'pässwörd ✓', '$argon2i$v=19$m=1024,t=2,p=1$k1T9TBlLkkViKASWl3yAGg$AmIzDpdKDgU2NEmwaRnSxFvarZAr9MbAcEVK99rWovU'),
    ('bcrypt (PyCA) 4.0.1', 'correct horse', '$2b$04$1GTOyzrgJ8iAQ.NVJO3bu.WVwUZF1.jWXMTHXvGZXbXdqf2Se2KNW'),
    ('bcrypt (PyCA) 4.0.1', 'correct horse', '$2a$04$gdJGj2oAE/V6GU3QUch0NOFD24r38hqm7WY8swQ67HBdSF2Z5124O'),
    ('passlib 1.7.4', 'correct horse', '$argon2id$v=19$m=512,t=3,p=1$hTAmBMDYGyNkrJUSolTqvQ$6mwBlr56Vp5SbQS7lwr7oly1iBwIx7kH'),
    ('passlib 1.7.4', 'correct horse', '$2y$04$USe2mKJqC9UnF9OrtVMaS.e3nJZLwOK/BkKL36sWw8HjauEm47.YW'),
    ('bcrypt (PyCA) 4.0.1', 'pässwörd ✓', '$2b$04$zrYs.zHZIL1EIVv.iXarc.kPuTlMj8IPev7xBsNH1yQyvML/uZ6IC'),
    ('bcrypt (PyCA) 4.0.1', 'pässwörd ✓', '$2a$04$v.w2j81y/enQqti/ykyK8uOE0VcGoi6b6ee21h9nHnXZl3n3QdEHq'),
    ('passlib 1.7.4', 'pässwörd ✓', '$argon2id$v=19$m=512,t=3,p=1$EIJwzplzTmlNiVHK2RujlA$zh5Ra7IBTTLffRFLdf67Jy/60dZ0awXN'),
    ('passlib 1.7.4', 'pässwörd ✓', '$2y$04$2g05l9v1DzzGNac8zGbTeev7qxph6GpM.dxa3ewGEw7Xpa.YZhw1W'),
    ('bcryptjs 3.0.3', 'correct horse', '$2b$04$uRgkWyW9AOESM7pYrZsiNuyii8UShanHvNj6NOAW2oCOi4GO7ydMe'),
    ('@node-rs/argon2 2.2.1', 'correct horse', '$argon2id$v=19$m=1024,t=2,p=1$eirLK7hYLE7o0V7LJAHRQQ$+zBz4wolwNAle6whDVnk3KxEAkICKFEyNwrtcLyyZMM'),
    ('@node-rs/argon2 2.2.1', 'correct horse', '$argon2i$v=19$m=1024,t=3,p=3$Vs2K0uqEEYK9B7sp/8FWIw$UiqFMZUGUa2Fg7PM6NncoIILLKJNxXAPi8Opx1W5V2IZsnYLnC+8ByKFhLR2Nidc'),
    ('@node-rs/bcrypt 2.0.0', 'correct horse', '$2b$04$j0EDfcZkzsP1H5kjmNUoN.fN6dbSS8sZl4tURtSsaoYPS1dy3X2X6'),
    ('bcryptjs 3.0.3', 'pässwörd ✓', '$2b$04$D6TpdUD9nm7nMxmkrp38auI5.mq3hTH2Vkue1l3tDKsTmvQ4Jpn5G'),
    ('@node-rs/argon2 2.2.1', 'pässwörd ✓', '$argon2id$v=19$m=1024,t=2,p=1$r9e3AuXqkOvuPAGV8/7HfA$UyKRvyqUkWBqk1B4+zFaUp9x9DQDrKE+UrBsp6goaxI'),
    ('@node-rs/argon2 2.2.1', 'pässwörd ✓', '$argon2i$v=19$m=1024,t=3,p=3$nxvfx06owX4YfZ4J5CKjKw$OmEjrf4PTAxCdB7OzWHueKgGgJIQFDpAKWJFc4a/ZEeHAESH6PdtIteyq75SqULq'),
    ('@node-rs/bcrypt 2.0.0', 'pässwörd ✓', '$2b$04$4kccbnPnLuXhATIF8ej3y.12ENx9QcA9ggG4jwim2Nhp83xoXoI0C')) v (made_by, secret, hash);
-- What is none of them fits nothing, and nobody takes an hour by one.
SELECT h, plinth.secret_verify('U*U', h) FROM (VALUES ('$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW'), ('$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe'),
    ('$2a$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW'), ('$2a$xx$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW'), ('$1$salt$qJH7.N4xYta3aEG/dfqo/0')) v (h);
SELECT plinth.secret_verify('U*U', '$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW');
SET ROLE passwords_user;
SELECT plinth.secret_verify('U*U', '$2a$13$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW');
RESET ROLE;

-- A foreign hash signs in, and is one of ours then.
INSERT INTO plinth.users (email, username) VALUES ('old@passwords.test', 'pw_old');
INSERT INTO plinth.passwords (user_id, phc) SELECT id, '$2b$04$OcHZ1lpK1FMgKineBgAkWOOjY7.BmhMd2PcOwocCofYOqB9pQ/zA6' FROM plinth.users WHERE username = 'pw_old';
SELECT status FROM plinth.sign_in('pw_old', 'correct house');
SELECT left(phc, 4) AS phc FROM plinth.passwords p JOIN plinth.users u ON u.id = p.user_id WHERE username = 'pw_old';
SELECT status FROM plinth.sign_in('pw_old', 'correct horse');
SELECT left(phc, 9) AS phc FROM plinth.passwords p JOIN plinth.users u ON u.id = p.user_id WHERE username = 'pw_old';
SELECT status FROM plinth.sign_in('pw_old', 'correct horse');

-- What may be one.
INSERT INTO plinth.breached_passwords SELECT substr(h, 1, n) FROM (VALUES (decode('cbfdac6008f9cab4083784cbd1874f76618d2a97', 'hex'), 20), -- password123
    (decode('7c4a8d09ca3762af61e59520943dc26494f8941b', 'hex'), 10), -- 123456
    (decode('b1b3773a05c0ed0176787a4f1574ff0075f7521e', 'hex'), 8)) v (h, n); -- qwerty
SELECT p, c.* FROM (VALUES ('correct horse'), ('short'), ('äöüäöüä'), ('äöüäöüäö'), ('password123'), ('Password123'), ('123456'), ('qwerty'), ('')) v (p), plinth.password_check(p) c;
SELECT * FROM plinth.password_check(repeat('x', 1025));
SELECT * FROM plinth.password_check(repeat('x', 1000000));
SELECT * FROM plinth.password_check(NULL);
INSERT INTO plinth.breached_passwords VALUES ('\x00112233445566');
SELECT plinth.sign_up('new@passwords.test', 'password123');
SELECT plinth.sign_up('new@passwords.test', 'short');
SELECT plinth.password_reset('plo_x', 'short');

-- Changing it: with the present one, by the user alone; other sessions end.
SELECT status FROM plinth.sign_up('ann@passwords.test', 'correct horse', 'pw_ann');
SELECT token AS one FROM plinth.sign_in('pw_ann', 'correct horse') \gset
SELECT token AS two FROM plinth.sign_in('pw_ann', 'correct horse') \gset
SELECT plinth.password_change('correct horse', 'another horse');
BEGIN;
SELECT plinth.context_begin(:'one') IS NOT NULL AS begun;
SELECT * FROM plinth.password_change('wrong', 'another horse');
SELECT * FROM plinth.password_change(NULL, 'another horse');
SELECT * FROM plinth.password_change(repeat('x', 1000000), 'another horse');
SAVEPOINT s;
SELECT * FROM plinth.password_change('correct horse', 'password123');
ROLLBACK TO s;
SELECT * FROM plinth.password_change('correct horse', NULL);
ROLLBACK TO s;
SELECT * FROM plinth.password_change('correct horse', 'another horse');
COMMIT;
SELECT n, (SELECT user_id IS NOT NULL FROM plinth.session_verify(t)) AS good FROM (VALUES ('one', :'one'), ('two', :'two')) v (n, t);
SELECT status FROM plinth.sign_in('pw_ann', 'correct horse');
SELECT status FROM plinth.sign_in('pw_ann', 'another horse');
-- Wrong ones are counted, whether rolled back or not.
SELECT plinth.rate_limit_alter('plinth.lockout_1', period => '1 day');
BEGIN;
SELECT plinth.context_begin(:'one') IS NOT NULL AS begun;
SELECT n, (plinth.password_change('wrong', 'another horse')).status FROM generate_series(1, 6) n;
ROLLBACK;
BEGIN;
SELECT plinth.context_begin(:'one') IS NOT NULL AS begun;
SELECT status, retry_after > '1 hour' AS later FROM plinth.password_change('another horse', 'third horse');
ROLLBACK;
SELECT plinth.rate_limit_drop('plinth.lockout_1');

-- Without a password: soon after signing in.
SET ROLE passwords_admin;
SELECT plinth.password_set(id, NULL) FROM plinth.users WHERE username = 'pw_old';
RESET ROLE;
SELECT status FROM plinth.sign_in('pw_old', 'correct horse');
SELECT plinth.uuid_v7() AS session \gset
INSERT INTO plinth.sessions (id, user_id, token_hash, expires_at, authenticated_at)
    SELECT :'session', id, plinth._blake2b(plinth.base64url_decode('AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA')), now() + interval '1 day', now() - interval '1 hour' FROM plinth.users WHERE username = 'pw_old';
BEGIN;
SELECT plinth.context_begin('pls_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA') IS NOT NULL AS begun;
RESET ROLE;
SELECT * FROM plinth.password_change(NULL, 'first horse');
UPDATE plinth.sessions SET authenticated_at = now() WHERE id = :'session';
SELECT * FROM plinth.password_change(NULL, 'first horse');
COMMIT;
SELECT status FROM plinth.sign_in('pw_old', 'first horse');

-- Administrators set one; all sessions end.
SET ROLE passwords_user;
SELECT plinth.password_set(:'session', 'second horse');
SET ROLE passwords_admin;
SELECT plinth.password_set('00000000-0000-7000-8000-000000000000', 'second horse');
SELECT plinth.password_set(NULL, 'second horse');
SELECT plinth.password_set(id, 'short') FROM plinth.users WHERE username = 'pw_old';
SELECT plinth.password_set(id, 'second horse') FROM plinth.users WHERE username = 'pw_old';
RESET ROLE;
SELECT status FROM plinth.sign_in('pw_old', 'second horse');
SELECT count(*) FROM plinth.sessions s JOIN plinth.users u ON u.id = s.user_id WHERE username = 'pw_old' AND revoked_at IS NULL;
SELECT count(*) FROM plinth.session_verify('pls_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA') v WHERE v.user_id IS NOT NULL;

-- Files are for those who may read them.
SET ROLE passwords_admin;
SELECT plinth.breached_passwords_load('/etc/passwd');
SET ROLE passwords_user;
SELECT plinth.breached_passwords_load('/etc/passwd');
SELECT FROM plinth.breached_passwords;
RESET ROLE;

SELECT action, result, metadata, count(*) FROM plinth.audit_entries WHERE id > :'start' AND action LIKE 'plinth.password%' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
DELETE FROM plinth.users WHERE id > :'start';
DELETE FROM plinth.breached_passwords;
DROP ROLE passwords_user, passwords_admin;
