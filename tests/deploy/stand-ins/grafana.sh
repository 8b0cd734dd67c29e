#!/bin/sh
set -eu
for file in "$GF_SECURITY_ADMIN_PASSWORD__FILE" /run/secrets/dashboard-password "$GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH" \
    /etc/grafana/provisioning/datasources/*.yml /etc/grafana/provisioning/dashboards/*.yml; do
    cat "$file" >/dev/null
done
touch /var/lib/grafana/grafana.db
mkdir -p /tmp/www/api
echo '{"database":"ok"}' >/tmp/www/api/health
exec busybox httpd -f -p 3000 -h /tmp/www
