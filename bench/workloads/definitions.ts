/** Software as it is packaged by Debian, and what its start does until it has answered once. */
export interface Workload {
  readonly name: string;
  /** One sentence: what is started, and what ends the measurement. */
  readonly title: string;
  /** Debian packages on top of a minimal system. */
  readonly packages: readonly string[];
  /** Shell commands that complete the image, run in it once. */
  readonly setup: string;
  /** Shell commands of a start. What they print first is the answer, on one line. */
  readonly start: string;
}

const NODE_SERVER = `
const express = require('express');
const http = require('node:http');
const app = express();
app.get('/', (request, response) => response.send('ready: ' + request.path));
const server = app.listen(8080, '127.0.0.1', () => {
  http.get('http://127.0.0.1:8080/', (answer) => {
    answer.on('data', (text) => console.log(String(text)));
    answer.on('end', () => server.close(() => process.exit(0)));
  });
});
`;

const WORDPRESS_CONFIG = `<?php
define('DB_NAME', 'wordpress');
define('DB_USER', 'wordpress');
define('DB_PASSWORD', 'wordpress');
define('DB_HOST', 'localhost');
define('WP_CONTENT_DIR', '/var/lib/wordpress/wp-content');
define('DISABLE_WP_CRON', true);
define('WP_HTTP_BLOCK_EXTERNAL', true);
$table_prefix = 'wp_';
if (!defined('ABSPATH')) define('ABSPATH', '/usr/share/wordpress/');
require_once ABSPATH . 'wp-settings.php';
`;

const WORDPRESS_INSTALL = `<?php
$_SERVER['HTTP_HOST'] = '127.0.0.1:8080';
$_SERVER['REQUEST_METHOD'] = 'GET';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
define('WP_INSTALLING', true);
define('WP_SITEURL', 'http://127.0.0.1:8080');
require '/usr/share/wordpress/wp-load.php';
require ABSPATH . 'wp-admin/includes/upgrade.php';
wp_install('A first page', 'admin', 'admin@example.org', true, '', 'secret');
`;

const WORDPRESS_SITE = `ServerName localhost
Listen 127.0.0.1:8080
<VirtualHost 127.0.0.1:8080>
  DocumentRoot /usr/share/wordpress
  <Directory /usr/share/wordpress>
    Require all granted
    DirectoryIndex index.php
  </Directory>
  Alias /wp-content /var/lib/wordpress/wp-content
  <Directory /var/lib/wordpress/wp-content>
    Require all granted
  </Directory>
</VirtualHost>
`;

const JAVA_HELLO = `
public class Hello {
  public static void main(String[] words) {
    System.out.println("ready: Java " + Runtime.version().feature());
  }
}
`;

const UNTIL_ANSWERED = 'until busybox wget -q -O';

export const workloads: readonly Workload[] = [
  {
    name: 'python-pandas',
    title: 'Python imports pandas and Matplotlib, and draws a line into a PNG.',
    packages: ['python3', 'python3-pandas', 'python3-matplotlib'],
    setup: ':',
    start: `
export HOME=/tmp MPLBACKEND=Agg
python3 -c '
import pandas
import matplotlib.pyplot as plot
pandas.Series([1, 3, 2]).plot()
plot.savefig("/tmp/line.png")
print("ready: pandas", pandas.__version__, flush=True)'`,
  },
  {
    name: 'node-express',
    title: 'Node loads Express, listens, and answers its own first request.',
    packages: ['nodejs', 'node-express'],
    setup: heredoc('/workload/server.js', NODE_SERVER),
    start: 'NODE_PATH=/usr/share/nodejs node /workload/server.js',
  },
  {
    name: 'nginx',
    title: 'nginx starts and serves its first page.',
    packages: ['nginx'],
    setup: 'sed -i s/80/8080/ /etc/nginx/sites-available/default',
    start: `
nginx
${UNTIL_ANSWERED} /tmp/page http://127.0.0.1:8080/; do sleep 0.02; done
grep -o '<title>.*</title>' /tmp/page`,
  },
  {
    name: 'postgresql',
    title: 'PostgreSQL starts and answers its first query, a join over 100,000 rows.',
    packages: ['postgresql'],
    setup: `
pg_ctlcluster 15 main start
runuser -u postgres -- psql -q -c 'create table item as
  select i as id, md5(i::text) as name, i % 100 as kind from generate_series(1, 100000) i;
  alter table item add primary key (id);
  create table kind as select i as id, md5(i::text) as title from generate_series(0, 99) i;'
runuser -u postgres -- psql -q -c 'vacuum analyze'
pg_ctlcluster 15 main stop`,
    start: `
pg_ctlcluster --skip-systemctl-redirect 15 main start
runuser -u postgres -- psql -At -c \\
  'select count(*), max(title) from item join kind on kind.id = item.kind where item.id % 7 = 0'`,
  },
  {
    name: 'redis',
    title: 'Redis loads 200,000 keys from its dump and answers a GET.',
    packages: ['redis-server'],
    setup: `
redis-server --save '' --daemonize yes --dir /var/lib/redis --pidfile /run/redis.pid
until redis-cli ping >/dev/null; do sleep 0.1; done
redis-cli eval "for i = 1, 200000 do
  redis.call('set', 'key:' .. i, 'value ' .. redis.sha1hex(i))
end" 0 >/dev/null
redis-cli save >/dev/null
redis-cli shutdown nosave`,
    start: `
redis-server --save '' --daemonize yes --dir /var/lib/redis --logfile /tmp/redis.log >/dev/null
until [ "$(redis-cli ping 2>/dev/null)" = PONG ]; do sleep 0.02; done
redis-cli get key:1234`,
  },
  {
    name: 'wordpress',
    title: 'MariaDB, Apache and PHP start, and WordPress serves its first page.',
    packages: [
      ...['mariadb-server', 'apache2', 'libapache2-mod-php', 'php-mysql'],
      ...['wordpress', 'wordpress-theme-twentytwentythree'],
    ],
    setup: `
${heredoc('/etc/wordpress/config-127.0.0.1.php', WORDPRESS_CONFIG)}
${heredoc('/workload/install.php', WORDPRESS_INSTALL)}
${heredoc('/etc/apache2/sites-available/workload.conf', WORDPRESS_SITE)}
a2dissite -q 000-default
a2ensite -q workload
: > /etc/apache2/ports.conf
mkdir -p /run/mysqld
chown mysql /run/mysqld
mariadbd-safe --skip-syslog >/dev/null 2>&1 &
until mariadb-admin ping >/dev/null 2>&1; do sleep 0.1; done
mariadb -e "create database wordpress;
  create user wordpress@localhost identified by 'wordpress';
  grant all on wordpress.* to wordpress@localhost"
php /workload/install.php
mariadb-admin shutdown
wait`,
    start: `
mkdir -p /run/mysqld /run/apache2 /run/lock
chown mysql /run/mysqld
mariadbd --user=mysql >/tmp/mariadb.log 2>&1 &
apachectl start
until mariadb-admin ping >/dev/null 2>&1; do sleep 0.02; done
${UNTIL_ANSWERED} /tmp/page http://127.0.0.1:8080/; do sleep 0.02; done
grep -o '<title>.*</title>' /tmp/page`,
  },
  {
    name: 'java-hello',
    title: 'A Java virtual machine starts and prints a line.',
    packages: ['openjdk-17-jdk-headless'],
    setup: `
${heredoc('/workload/Hello.java', JAVA_HELLO)}
javac -d /workload /workload/Hello.java`,
    start: 'java -cp /workload Hello',
  },
];

export function workloadNamed(name: string): Workload {
  const found = workloads.find((workload) => workload.name === name);
  if (found !== undefined) return found;
  const names = workloads.map((workload) => workload.name).join(', ');
  throw new Error(`no workload ${name}; there are ${names}`);
}

/** A shell command that writes a file. */
function heredoc(path: string, content: string): string {
  return `cat > ${path} <<'END-OF-FILE'\n${content}END-OF-FILE`;
}
