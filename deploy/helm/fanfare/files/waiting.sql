SELECT count(*) FROM (
    SELECT endpoint_id FROM endpoint_backlogs WHERE owner IS NULL AND next_look < now() - interval '10 s' LIMIT 200) b
CROSS JOIN LATERAL (SELECT FROM open_deliveries o WHERE o.endpoint_id = b.endpoint_id AND o.state = 'queued' LIMIT 1000) o
