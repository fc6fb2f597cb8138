-- Version 7: an append that is repeated since its answer was lost is refused, too, if the store has redactions that the batch has
-- not seen. Until now it was not, and a batch that had never reached the server was stored though it was decided on the old text.
-- A batch that the earlier call has stored is answered before this check.
--
-- Processes of version 6 run on meanwhile, with the changed function.

DO $migration$
DECLARE
    before text := pg_get_functiondef('{schema}.append_requests'::regproc);
    after text := replace(before, 'IF redactions > known_redactions AND NOT settling THEN', 'IF redactions > known_redactions THEN');
BEGIN
    IF before = after THEN
        RAISE EXCEPTION 'the function append_requests is not that of version 6';
    END IF;
    EXECUTE after;
END $migration$;
