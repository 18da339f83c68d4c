package testbed;

import com.scalar.db.api.DistributedTransaction;
import com.scalar.db.api.DistributedTransactionManager;
import com.scalar.db.api.Get;
import com.scalar.db.api.Put;
import com.scalar.db.api.Result;
import com.scalar.db.exception.transaction.CommitConflictException;
import com.scalar.db.exception.transaction.CrudConflictException;
import com.scalar.db.exception.transaction.TransactionException;
import com.scalar.db.exception.transaction.UnknownTransactionStatusException;
import com.scalar.db.io.Key;
import com.scalar.db.service.TransactionFactory;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadLocalRandom;

/**
 * A bank on Scalar DB: accounts in one or more tables, and threads that move money between them, so that the sum of all balances
 * never changes. With properties that name a server it is an application of that server; with properties that name databases it
 * embeds Scalar DB: to read a restored copy, or to write past the server as no application should.
 *
 * <p>Usage: Bank PROPERTIES ACCOUNTS BALANCE NAMESPACE.TABLE... Each line of standard input is a command, answered by one line
 * that begins with "ok" or "error"; the process ends with its input.
 *
 * <pre>
 * load                 inserts the accounts         ok ACCOUNTS
 * start THREADS        starts the writers           ok
 * stop                 stops them                   ok
 * stats                since the process started    ok COMMITS CONFLICTS UNKNOWN ERRORS
 * gap FROM TO          the longest time without a commit that lies between the two (ms since the epoch)
 *                                                   ok FROM TO
 * commits FROM TO      commits between the two      ok COMMITS
 * sum MILLISECONDS     reads every account in one transaction, tried again until the time is over
 *                                                   ok ROWS SUM
 * hold MILLISECONDS    begins a transfer and leaves it open, after its reads and writes; one that loses against another is tried
 *                      again until the time is over
 *                                                   ok
 * release              commits it                   ok
 * </pre>
 */
public final class Bank {
  private final DistributedTransactionManager manager;
  private final List<Account> accounts = new ArrayList<>();
  private final int balance;

  private final List<Thread> writers = new ArrayList<>();
  private volatile boolean stopping;
  private DistributedTransaction held;

  // Guarded by this.
  private final List<Long> commits = new ArrayList<>(); // when each was answered, in ms since the epoch, in order
  private long conflicts;
  private long unknown;
  private long errors;

  private static final class Account {
    final String namespace;
    final String table;
    final int id;

    Account(String namespace, String table, int id) {
      this.namespace = namespace;
      this.table = table;
      this.id = id;
    }

    Get get() {
      return Get.newBuilder().namespace(namespace).table(table).partitionKey(Key.ofInt("id", id)).build();
    }

    Put set(int balance) {
      return Put.newBuilder()
          .namespace(namespace)
          .table(table)
          .partitionKey(Key.ofInt("id", id))
          .intValue("balance", balance)
          .build();
    }
  }

  private Bank(DistributedTransactionManager manager, int perTable, int balance, List<String> tables) {
    this.manager = manager;
    this.balance = balance;
    for (String name : tables) {
      int dot = name.indexOf('.');
      for (int id = 0; id < perTable; id++) {
        accounts.add(new Account(name.substring(0, dot), name.substring(dot + 1), id));
      }
    }
  }

  public static void main(String[] args) throws Exception {
    PrintStream out = System.out;
    System.setOut(System.err); // libraries log to standard output
    TransactionFactory factory = TransactionFactory.create(Path.of(args[0]));
    List<String> tables = List.of(args).subList(3, args.length);
    try (DistributedTransactionManager manager = factory.getTransactionManager()) {
      Bank bank = new Bank(manager, Integer.parseInt(args[1]), Integer.parseInt(args[2]), tables);
      BlockingQueue<String> commands = new LinkedBlockingQueue<>();
      Thread reader = new Thread(() -> read(commands), "commands");
      reader.setDaemon(true);
      reader.start();
      while (true) {
        String line = commands.take();
        String answer;
        try {
          answer = bank.answer(line.trim().split(" "));
        } catch (Exception e) {
          answer = "error " + describe(e);
        }
        out.println(answer);
      }
    }
  }

  /** Ends the process with its input, also in the middle of a command: a test that is killed leaves nothing behind. */
  private static void read(BlockingQueue<String> commands) {
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    try {
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        commands.add(line);
      }
    } catch (IOException e) {
      // The same as the end.
    }
    Runtime.getRuntime().halt(0);
  }

  private String answer(String[] words) throws Exception {
    switch (words[0]) {
      case "load":
        return "ok " + load();
      case "start":
        start(Integer.parseInt(words[1]));
        return "ok";
      case "stop":
        stop();
        return "ok";
      case "stats":
        synchronized (this) {
          return "ok " + commits.size() + " " + conflicts + " " + unknown + " " + errors;
        }
      case "gap":
        return gap(Long.parseLong(words[1]), Long.parseLong(words[2]));
      case "commits":
        return "ok " + commitsBetween(Long.parseLong(words[1]), Long.parseLong(words[2]));
      case "sum":
        return sum(Long.parseLong(words[1]));
      case "hold":
        hold(Long.parseLong(words[1]));
        return "ok";
      case "release":
        held.commit();
        return "ok";
      default:
        return "error no such command: " + words[0];
    }
  }

  private int load() throws Exception {
    // Small transactions: a server may take its time for each record.
    for (int from = 0; from < accounts.size(); from += 100) {
      DistributedTransaction tx = manager.begin();
      for (Account a : accounts.subList(from, Math.min(from + 100, accounts.size()))) {
        tx.get(a.get());
        tx.mutate(List.of(a.set(balance)));
      }
      tx.commit();
    }
    return accounts.size();
  }

  private void start(int threads) {
    stopping = false;
    for (int i = 0; i < threads; i++) {
      Thread writer = new Thread(this::write, "writer-" + i);
      writer.setDaemon(true);
      writer.start();
      writers.add(writer);
    }
  }

  /**
   * Waits for the writers, also while the client backs off after a pause. An interrupt would be quicker, but leave transactions
   * open on the server, or records half written.
   */
  private void stop() throws InterruptedException {
    stopping = true;
    for (Thread writer : writers) {
      writer.join();
    }
    writers.clear();
  }

  private void write() {
    while (!stopping) {
      try {
        DistributedTransaction tx = manager.begin();
        try {
          transfer(tx);
          tx.commit();
        } catch (UnknownTransactionStatusException e) {
          throw e; // whoever reads the records next finds out
        } catch (Exception e) {
          rollback(tx);
          throw e;
        }
        synchronized (this) {
          commits.add(System.currentTimeMillis());
        }
      } catch (CrudConflictException | CommitConflictException e) {
        synchronized (this) {
          conflicts++;
        }
      } catch (UnknownTransactionStatusException e) {
        synchronized (this) {
          unknown++;
        }
      } catch (Exception e) {
        synchronized (this) {
          if (errors++ < 20) {
            System.err.println("writer: " + describe(e));
          }
        }
        try {
          Thread.sleep(20); // a refusing server shall not be hammered
        } catch (InterruptedException interrupted) {
          return;
        }
      }
    }
  }

  private static void rollback(DistributedTransaction tx) {
    try {
      tx.rollback();
    } catch (Exception e) {
      // It is over either way: nothing was committed.
    }
  }

  /** Moves a random amount between two accounts, of the same table or of two. */
  private void transfer(DistributedTransaction tx) throws TransactionException {
    ThreadLocalRandom random = ThreadLocalRandom.current();
    Account from = accounts.get(random.nextInt(accounts.size()));
    Account to = accounts.get(random.nextInt(accounts.size()));
    if (from == to) {
      to = accounts.get((accounts.indexOf(from) + 1) % accounts.size());
    }
    int amount = 1 + random.nextInt(9);
    int balanceFrom = balance(tx, from);
    int balanceTo = balance(tx, to);
    tx.mutate(List.of(from.set(balanceFrom - amount), to.set(balanceTo + amount)));
  }

  private static int balance(DistributedTransaction tx, Account a) throws TransactionException {
    Optional<Result> row = tx.get(a.get());
    if (row.isEmpty()) {
      throw new IllegalStateException("no account " + a.id + " in " + a.namespace + "." + a.table);
    }
    return row.get().getInt("balance");
  }

  private void hold(long milliseconds) throws Exception {
    long deadline = System.currentTimeMillis() + milliseconds;
    while (true) {
      DistributedTransaction tx = manager.begin();
      try {
        transfer(tx);
        held = tx;
        return;
      } catch (TransactionException e) {
        // It read what a writer was just committing.
        rollback(tx);
        if (System.currentTimeMillis() > deadline) {
          throw e;
        }
        Thread.sleep(100);
      }
    }
  }

  /** Missing rows are counted, not refused: a restored copy may lack some. */
  private String sum(long milliseconds) throws Exception {
    long deadline = System.currentTimeMillis() + milliseconds;
    while (true) {
      DistributedTransaction tx = null;
      try {
        tx = manager.begin();
        long sum = 0;
        int rows = 0;
        for (Account a : accounts) {
          Optional<Result> row = tx.get(a.get());
          if (row.isPresent()) {
            sum += row.get().getInt("balance");
            rows++;
          }
        }
        tx.commit();
        return "ok " + rows + " " + sum;
      } catch (TransactionException e) {
        // A record that a crashed or half copied transaction left behind is recovered by whoever reads it, after a while.
        if (tx != null) {
          rollback(tx);
        }
        if (System.currentTimeMillis() > deadline) {
          throw e;
        }
        Thread.sleep(100);
      }
    }
  }

  private synchronized String gap(long from, long to) {
    long last = from;
    long gapFrom = from;
    long gapTo = from;
    for (long at : commits) {
      if (at <= from) {
        continue;
      }
      if (at > to) {
        break;
      }
      if (at - last > gapTo - gapFrom) {
        gapFrom = last;
        gapTo = at;
      }
      last = at;
    }
    if (to - last > gapTo - gapFrom) {
      gapFrom = last;
      gapTo = to;
    }
    return "ok " + gapFrom + " " + gapTo;
  }

  private synchronized long commitsBetween(long from, long to) {
    return commits.stream().filter(at -> at >= from && at <= to).count();
  }

  private static String describe(Throwable e) {
    StringBuilder text = new StringBuilder();
    for (Throwable t = e; t != null; t = t.getCause()) {
      text.append(text.length() == 0 ? "" : ": ").append(t);
    }
    return text.toString().replaceAll("\\s+", " ");
  }
}
