-- limits: the policies that the extension itself asks, as long as plinth.rate_limits has none of their name.

CREATE OR REPLACE VIEW plinth.rate_limit_defaults AS
SELECT v.id, v.name, 'gcra'::text AS algorithm, v.limit_count, v.period, v.burst, v.scope, v.shadow, true AS enabled,
    'deny'::text AS on_error, v.comment
FROM (VALUES
    (2147483001, 'plinth.sign_in_address', 60::bigint, interval '1 minute', 100::bigint, 'address', false,
        'Sign-ins from one address.'),
    (2147483002, 'plinth.sign_in_account', 100, interval '1 hour', 100, 'key', true,
        'Sign-ins to one account from wherever. Only counted: whoever turns shadow off lets strangers keep the owner out.'),
    (2147483003, 'plinth.lockout_1', 1, interval '1 minute', 5, 'key', false,
        'Wrong passwords for one account from one address: first pause.'),
    (2147483004, 'plinth.lockout_2', 1, interval '10 minutes', 10, 'key', false,
        'Wrong passwords for one account from one address: second pause.'),
    (2147483005, 'plinth.lockout_3', 1, interval '2 hours', 20, 'key', false,
        'Wrong passwords for one account from one address: third pause.'),
    (2147483006, 'plinth.sign_up_address', 60, interval '1 hour', 30, 'address', false,
        'Sign-ups from one address.'),
    (2147483007, 'plinth.mail_address', 60, interval '1 hour', 30, 'address', false,
        'Mails that were asked for from one address.'),
    (2147483008, 'plinth.mail_account', 10, interval '1 hour', 5, 'key', false,
        'Mails of one kind that were asked for one account.')) v (id, name, limit_count, period, burst, scope, shadow, comment);
ALTER VIEW plinth.rate_limit_defaults OWNER TO plinth_owner;
COMMENT ON VIEW plinth.rate_limit_defaults IS
'Policies that the extension itself asks (sign-in, sign-up, mails) while plinth.rate_limits has none of their name. rate_limit_alter changes one by putting it there, rate_limit_drop gives the default back.';
REVOKE ALL ON plinth.rate_limit_defaults FROM PUBLIC;
GRANT SELECT ON plinth.rate_limit_defaults TO plinth_admin;
