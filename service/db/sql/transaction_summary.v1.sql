-- Transactions by day (UTC), currency and status, for reports and dashboards; deleted ones do not count.
CREATE OR REPLACE VIEW transaction_summary AS
SELECT
  (created_at AT TIME ZONE 'UTC')::date AS day,
  currency,
  status,
  count(*) AS transactions,
  sum(amount) AS amount
FROM transaction
WHERE deleted_at IS NULL
GROUP BY 1, 2, 3;
