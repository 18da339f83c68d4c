import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.ObjectOutputStream;
import java.io.Serializable;
import java.lang.management.ManagementFactory;
import java.rmi.registry.LocateRegistry;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicInteger;
import javax.management.*;
import javax.management.openmbean.*;
import javax.management.remote.*;

/**
 * An MBean that does what the tests of the Go client need. "java FakeMBean" serves it until standard input ends; "java FakeMBean dump" prints values as
 * serialised by this JVM; "java FakeMBean idle PORT MILLISECONDS" also serves it at a port of its own with that idle timeout.
 */
public class FakeMBean {
    public interface ServiceMBean {
        String getVersion();
        int getCount();
        int getFinished();
        Object value(String name);
        String describe(String s, boolean b, Boolean boxed, int i, long l, double d, String[] a, Map<String, String> m, Set<String> set, List<String> list, ObjectName n, String none);
        String importLike(Set<String> paths, boolean a, boolean b, boolean c, boolean d, boolean e, boolean f, boolean g);
        void nothing();
        void snapshot(String tag, String... keyspaces) throws IOException;
        void wrapped();
        void forbidden();
        void fail() throws Exception;
        Object unserialisable();
        byte[] bytes(int n);
        Object nulls(int n);
        void sleep(long millis) throws InterruptedException;
        String big(String s);
    }

    public enum Mode { JOINING, NORMAL { @Override public String toString() { return "n"; } } }

    public static class Plain implements Serializable {
        private static final long serialVersionUID = 1;
        int number = 7;
        String text = "seven";
        Plain self;
    }

    public static class Service implements ServiceMBean {
        final AtomicInteger count = new AtomicInteger(), finished = new AtomicInteger();
        final Set<String> tags = ConcurrentHashMap.newKeySet();

        public String getVersion() { return "1.2.3"; }
        public int getCount() { return count.get(); }
        public int getFinished() { return finished.get(); }
        public Object value(String name) {
            Object v = values().get(name);
            if (v == null && !name.equals("null")) throw new IllegalArgumentException("no value " + name);
            return v;
        }
        public String describe(String s, boolean b, Boolean boxed, int i, long l, double d, String[] a, Map<String, String> m, Set<String> set, List<String> list, ObjectName n, String none) {
            return s + "|" + b + "|" + boxed + "|" + i + "|" + l + "|" + d + "|" + Arrays.toString(a) + "|" + new TreeMap<>(m) + "|" + new TreeSet<>(set) + "|" + list + "|" + n + "|" + none;
        }
        public String importLike(Set<String> paths, boolean a, boolean b, boolean c, boolean d, boolean e, boolean f, boolean g) {
            return new TreeSet<>(paths) + " " + a + b + c + d + e + f + g;
        }
        public void nothing() { count.incrementAndGet(); }
        public void snapshot(String tag, String... keyspaces) throws IOException {
            count.incrementAndGet();
            if (!tags.add(tag)) throw new IOException("Snapshot " + tag + " already exists.");
        }
        public void wrapped() { throw new RuntimeException(new IllegalStateException("inside")); }
        public void forbidden() { throw new SecurityException("the MBean's own"); }
        public void fail() throws Exception { throw new Exception("outer", new IOException("inner")); }
        public Object unserialisable() { return new Object[] {"text", new Object()}; }
        public byte[] bytes(int n) { return new byte[n]; }
        public Object nulls(int n) { return new Object[n]; }
        public void sleep(long millis) throws InterruptedException {
            count.incrementAndGet();
            Thread.sleep(millis);
            finished.incrementAndGet();
        }
        public String big(String s) { return s + s; }
    }

    static Map<String, Object> values() {
        try {
            return makeValues();
        } catch (Exception e) {
            throw new RuntimeException(e);
        }
    }

    static Map<String, Object> makeValues() throws Exception {
        Map<String, Object> v = new LinkedHashMap<>();
        v.put("string", "a\u0000\u00e9\u20ac\ud83d\ude00");
        v.put("character", '\u00e9');
        v.put("boolean", true);
        v.put("byte", (byte) -3);
        v.put("short", (short) -300);
        v.put("integer", -70000);
        v.put("long", -5_000_000_000L);
        v.put("float", 1.5f);
        v.put("double", -2.25);
        v.put("bytes", new byte[] {1, -1});
        v.put("booleans", new boolean[] {true, false});
        v.put("chars", new char[] {'a', '\u00e9'});
        v.put("shorts", new short[] {-1, 2});
        v.put("ints", new int[] {-1, 2});
        v.put("longs", new long[] {-1, 2});
        v.put("floats", new float[] {-1, 2});
        v.put("doubles", new double[] {-1, 2});
        v.put("strings", new String[] {"a", null, "a"});
        v.put("nested", new Object[] {new String[] {"a"}, new int[][] {{1}, {}}, 5});
        v.put("long-string", "x".repeat(70000));
        List<String> list = new ArrayList<>(List.of("a", "b"));
        v.put("arraylist", list);
        v.put("linkedlist", new LinkedList<>(list));
        v.put("arraydeque", new ArrayDeque<>(list));
        v.put("vector", new Vector<>(list));
        v.put("cowlist", new CopyOnWriteArrayList<>(list));
        v.put("aslist", Arrays.asList("a", "b"));
        v.put("list-of", List.of("a", "b"));
        v.put("list-of-3", List.of("a", "b", "c"));
        v.put("set-of", Set.of("a"));
        v.put("map-of", Map.of("a", "b"));
        v.put("empty-list", Collections.emptyList());
        v.put("empty-set", Collections.emptySet());
        v.put("empty-map", Collections.emptyMap());
        v.put("singleton-list", Collections.singletonList("a"));
        v.put("singleton", Collections.singleton("a"));
        v.put("singleton-map", Collections.singletonMap("a", 1));
        v.put("hashset", new HashSet<>(list));
        v.put("linkedhashset", new LinkedHashSet<>(list));
        v.put("treeset", new TreeSet<>(list));
        Map<String, Object> map = new LinkedHashMap<>();
        map.put("z", 1);
        map.put("a", null);
        map.put("list", list);
        v.put("linkedhashmap", map);
        v.put("hashmap", new HashMap<>(Map.of("k", "v")));
        v.put("hashtable", new Hashtable<>(Map.of("k", "v")));
        Properties properties = new Properties();
        properties.setProperty("k", "v");
        v.put("properties", properties);
        v.put("treemap", new TreeMap<>(Map.of("b", 2, "a", 1)));
        v.put("concurrenthashmap", new ConcurrentHashMap<>(Map.of("k", "v")));
        v.put("skiplistmap", new ConcurrentSkipListMap<>(Map.of("k", "v")));
        EnumMap<Mode, String> enums = new EnumMap<>(Mode.class);
        enums.put(Mode.NORMAL, "v");
        v.put("enummap", enums);
        v.put("unmodifiable-list", Collections.unmodifiableList(list));
        v.put("unmodifiable-set", Collections.unmodifiableSet(new TreeSet<>(list)));
        v.put("unmodifiable-map", Collections.unmodifiableMap(map));
        v.put("unmodifiable-sorted-map", Collections.unmodifiableSortedMap(new TreeMap<>(Map.of("k", "v"))));
        v.put("synchronized-list", Collections.synchronizedList(list));
        v.put("synchronized-map", Collections.synchronizedMap(new HashMap<>(Map.of("k", "v"))));
        v.put("checked-list", Collections.checkedList(list, String.class));
        v.put("map-by-list", new HashMap<>(Map.of(list, "v")));
        v.put("date", new Date(1_700_000_000_123L));
        v.put("enum", Mode.JOINING);
        v.put("enum-with-body", Mode.NORMAL);
        v.put("class", String.class);
        v.put("objectname", new ObjectName("test:type=Service"));
        AttributeList attributes = new AttributeList();
        attributes.add(new Attribute("Version", "1"));
        v.put("attributes", attributes);
        v.put("plain", new Plain());
        v.put("throwable", new IOException("message", new IllegalStateException("cause")));
        CompositeType row = new CompositeType("row", "row", new String[] {"name", "size"}, new String[] {"n", "s"}, new OpenType<?>[] {SimpleType.STRING, SimpleType.LONG});
        CompositeData one = new CompositeDataSupport(row, Map.of("name", "one", "size", 1L));
        v.put("composite", one);
        TabularDataSupport table = new TabularDataSupport(new TabularType("table", "table", row, new String[] {"name"}));
        table.put(one);
        v.put("table", table);
        Map<String, TabularData> details = new HashMap<>();
        details.put("tag", table);
        v.put("details", details);
        return v;
    }

    public static void main(String[] args) throws Exception {
        if (args.length > 0 && args[0].equals("dump")) {
            for (Map.Entry<String, Object> e : values().entrySet()) {
                ByteArrayOutputStream bytes = new ByteArrayOutputStream();
                try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
                    out.writeObject(e.getValue());
                }
                if (bytes.size() < 10_000) {
                    System.out.println(e.getKey() + " " + HexFormat.of().formatHex(bytes.toByteArray()));
                }
            }
            return;
        }
        MBeanServer server = ManagementFactory.getPlatformMBeanServer();
        server.registerMBean(new Service(), new ObjectName("test:type=Service"));
        if (args.length > 0 && args[0].equals("idle")) {
            int port = Integer.parseInt(args[1]);
            LocateRegistry.createRegistry(port);
            JMXServiceURL url = new JMXServiceURL("service:jmx:rmi://127.0.0.1/jndi/rmi://127.0.0.1:" + port + "/jmxrmi");
            Map<String, String> environment = Map.of("jmx.remote.x.server.connection.timeout", args[2], "jmx.remote.x.daemon", "true");
            JMXConnectorServerFactory.newJMXConnectorServer(url, environment, server).start();
        }
        System.out.println("READY");
        while (System.in.read() >= 0) {
            // until whoever started this is gone
        }
        System.exit(0);
    }
}
